"""Event files that TensorBoard reads as they were logged."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cas
from cas.errors import InvalidInputError
from cas.tracking.sinks import tensorboard
from cas.tracking.sinks.tensorboard import TensorBoard

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

PHOTO = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


def read(folder: Path) -> Any:
    """Return what TensorBoard's own reader finds in the event files of a run."""
    kinds = ("scalars", "images", "histograms", "audio", "tensors")
    found = accumulator.EventAccumulator(str(folder), size_guidance=dict.fromkeys(kinds, 0))
    found.Reload()
    return found


def text(found: Any, tag: str) -> list[str]:
    return [one.tensor_proto.string_val[0].decode() for one in found.Tensors(tag)]


def track(name: str = "r", **options: Any) -> cas.Run:
    return cas.track("exp", name=name, sinks=["tensorboard"], system_metrics=False, **options)


def test_what_is_logged_reads_back(here: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(1, 1))
    figure.add_subplot().plot([1, 2])
    with track(params={"lr": 0.1, "net": {"deep": True, "sizes": [1]}}) as run:
        for step in range(3):
            run.log({"loss": 1 / (step + 1)}, step)
        run.log_text("said", "<b>\nplain", step=1)
        run.log_text("marked", "# T", format="md")
        run.log_image("photo", PHOTO, step=2, caption="a photo")
        run.log_figure("figure", figure)
        run.log_histogram("h", cas.Histogram([1, 0, 3], [0.0, 1.0, 2.0, 4.0]))
        run.log_audio("tone", np.zeros(80, np.float32), rate=8000)
        run.log_table("left out", [{"a": 1}])
        run.log_params({"late": "x|y"})
        run.alert("careful", "it is hot")
    found = read(here / "runs/exp/r")
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [
        (step, np.float32(1 / (step + 1))) for step in range(3)
    ]
    assert text(found, "said") == ["    <b>\n    plain"]
    assert text(found, "marked") == ["# T"]
    (photo,) = found.Images("photo")
    assert (photo.step, photo.width, photo.height) == (2, 4, 6)
    assert photo.encoded_image_string == cas.open_run("exp/r").logged("photo")[0].bytes()
    assert text(found, "photo/caption") == ["a photo"]
    assert found.Images("figure")[0].encoded_image_string.startswith(b"\x89PNG")
    (told,) = found.Histograms("h")
    assert list(told.histogram_value.bucket_limit) == [0, 1, 2, 4]
    assert list(told.histogram_value.bucket) == [0, 1, 0, 3]
    assert (told.histogram_value.num, told.histogram_value.sum) == (4, 0.5 + 3 * 3)
    (tone,) = found.Audio("tone")
    assert (tone.sample_rate, tone.length_frames) == (8000, 80)
    assert text(found, "params")[-1].splitlines()[2:] == [
        "| lr | 0.1 |", "| net.deep | True |", "| net.sizes | [1] |", "| late | x\\|y |",
    ]  # fmt: skip
    assert text(found, "events/alert") == ["careful: it is hot"]
    assert "left out" not in str(found.Tags())


def test_params_stand_in_the_tab_of_hyperparameters(here: Path) -> None:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    with track(params={"lr": 0.1, "deep": True, "name": "a"}) as run:
        run.log({"loss": 1.0})
    with pytest.raises(KeyError), track("bad"):
        raise KeyError
    for name, status in {"r": api_pb2.STATUS_SUCCESS, "bad": api_pb2.STATUS_FAILURE}.items():
        found = read(here / "runs/exp" / name)
        end = plugin_data_pb2.HParamsPluginData.FromString(
            found.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
        )
        assert end.session_end_info.status == status
    found = read(here / "runs/exp/r")
    raw = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(raw).session_start_info.hparams
    assert {key: value.WhichOneof("kind") for key, value in start.items()} == {
        "lr": "number_value", "deep": "bool_value", "name": "string_value",
    }  # fmt: skip


def test_several_of_one_key_and_step_are_all_shown(here: Path) -> None:
    with track() as run:
        run.log({"samples": [cas.Image(PHOTO), cas.Image(PHOTO), cas.Image(PHOTO)]}, step=0)
        run.log({"samples": [cas.Image(PHOTO)]}, step=1)
    found = read(here / "runs/exp/r")
    steps = {tag: [one.step for one in found.Images(tag)] for tag in found.Tags()["images"]}
    assert steps == {"samples": [0, 1], "samples/2": [0], "samples/3": [0]}


def test_points_that_a_run_has_done_again_count_once(here: Path) -> None:
    run = track(resume="auto")
    run.log({"loss": 1.0}, step=0)
    run.save_checkpoint(model={"w": np.zeros(2)}, step=0, wait=True)
    run.log({"loss": 9.0}, step=1)
    run.finish("interrupted")
    with track(resume="auto") as run:
        assert run.resumed
        run.log({"loss": 2.0}, step=1)
    assert len(list((here / "runs/exp/r").iterdir())) == 2
    values = [(one.step, one.value) for one in read(here / "runs/exp/r").Scalars("loss")]
    assert values == [(0, 1.0), (1, 2.0)]


def test_its_folder_is_no_part_of_the_code(here: Path) -> None:
    with track():
        pass
    assert (here / "runs/.gitignore").read_text() == "*\n"
    (here / "mine").mkdir()
    with cas.track("exp", sinks=[{"kind": "tensorboard", "path": "mine"}], system_metrics=False):
        pass
    assert not (here / "mine/.gitignore").exists()  # that folder was there, and is somebody's
    assert list((here / "mine/exp").iterdir())


def test_without_tensorboard_it_is_refused_at_once(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"pip install 'cas-lineage\[tensorboard\]'"):
        track()
    assert not (here / ".cas").exists()


def test_neither_tensorflow_nor_its_server_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from cas.tracking.sinks.tensorboard import TensorBoard\n"
        f"sink = TensorBoard(Path({str(tmp_path)!r}))\n"
        "assert 'tensorboard' not in sys.modules\n"
        "sink.take({'type': 'begin', 'run': 'a/b'})\n"
        "sink.take({'type': 'point', 'metric': 'x', 'step': 0, 'value': 1.0, 'time': 1.0})\n"
        "print(sorted({'tensorflow', 'torch', 'grpc', 'werkzeug'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_damaged_sound_or_an_unknown_picture_is_passed_over(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path / "runs")
    sink.take({"type": "begin", "run": "a/b"})
    for kind, format in (("audio", "wav"), ("audio", "mp3"), ("figure", "svg"), ("image", "png")):
        sink.take(
            {"type": "logged", "kind": kind, "key": "k", "step": 0, "time": 1.0, "format": format,
             "bytes": 1, "options": {}, "content": b"RIFFxxxx"}
        )  # fmt: skip
    sink.close()
    found = read(tmp_path / "runs/a/b").Tags()
    assert found["images"] == []
    assert found["audio"] == []
