"""Everything that a run is shown reads back equal."""

import io
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cas
from cas.errors import AmbiguousError, NotFoundError, TrackingError
from cas.tracking.view import Item
from tests.support.builders import noise
from tests.support.runs import everything, only_run, opened

SECRET = "ghp_" + "a1B2" * 9
RNG = np.random.default_rng(1)
PHOTO = RNG.integers(0, 256, (9, 7, 3), np.uint8)


def only(key: str, kind: str | None = None) -> Item:
    (item,) = cas.open_run("a/x").logged(key, kind)
    return item


def test_texts(here: Path) -> None:
    with cas.track("a", name="x") as run:
        run.log_text("said", "hällo\n\0", step=3)
        run.log_text("said", "# Title", step=4, format="md", epoch=2)
        run.log_text("long", "word " * 5000)
        run.log({"said": "by its type"}, step=9)
    first, second, third = cas.open_run("a/x").logged("said")
    assert (first.value(), first.step, first.format, first.epoch) == ("hällo\n\0", 3, "txt", None)
    assert (second.value(), second.step, second.format, second.epoch) == ("# Title", 4, "md", 2)
    assert (third.value(), third.step) == ("by its type", 9)
    assert only("long").value() == "word " * 5000
    assert only("long").bytes() == b"word " * 5000


IMAGES: dict[str, Any] = {
    "gray": PHOTO[:, :, 0],
    "one channel": PHOTO[:, :, :1],
    "colours": PHOTO,
    "with alpha": RNG.integers(0, 256, (5, 4, 4), np.uint8),
    "a mask": PHOTO[:, :, 0] > 100,
    "sixteen bits": RNG.integers(0, 2**16, (5, 4)).astype(np.uint16),
    "not contiguous": PHOTO[::2, ::-1],
}


def test_images_of_bytes_come_back_to_the_bit(here: Path) -> None:
    with cas.track("a", name="x") as run:
        for key, image in IMAGES.items():
            run.log_image(key, image, step=1)
        run.log_image("told", PHOTO, caption="a caption", boxes=[{"x": 1, "label": "cat"}])
    for key, image in IMAGES.items():
        expected = image[:, :, 0] if key == "one channel" else image
        value = only(key).value()
        assert value.dtype == expected.dtype, key
        assert np.array_equal(value, expected), key
        assert only(key).bytes().startswith(b"\x89PNG"), key
    assert only("told").options["caption"] == "a caption"
    assert only("told").options["boxes"] == [{"x": 1, "label": "cat"}]


def test_images_of_numbers_are_bytes(here: Path) -> None:
    import torch

    tensor = torch.rand(3, 4, 5)
    with cas.track("a", name="x") as run:
        run.log_image("chw", tensor)
        run.log_image("hwc", tensor.permute(1, 2, 0).numpy(), axes="HWC")
        run.log_image("half", tensor.to(torch.bfloat16))
        run.log_image("wide", np.array([[-1.0, 3.0], [1.0, math.nan]]))
        run.log_image("flat", np.full((2, 2), 7.0))
        run.log({"wrapped": cas.Image(tensor[0], caption="c")})
    expected = (tensor.permute(1, 2, 0).double() * 255).round().byte().numpy()
    assert np.array_equal(only("chw").value(), expected)
    assert np.array_equal(only("hwc").value(), expected)
    assert np.abs(only("half").value().astype(int) - expected).max() <= 1
    assert only("wide").value().tolist() == [[0, 255], [128, 64]]
    assert only("wide").options["scaled"] == [-1, 3]
    assert only("flat").value().tolist() == [[0, 0], [0, 0]]
    assert only("wrapped").options["caption"] == "c"


def test_images_of_pil_and_files_stay_what_they_are(here: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(PHOTO)
    picture.save(here / "x.jpg")
    (here / "x.svg").write_text("<svg/>")
    with cas.track("a", name="x") as run:
        run.log({"pil": picture, "many": [picture, picture]}, step=2)
        run.log_image("jpg", here / "x.jpg")
        run.log_image("svg", "x.svg")
        run.log_image("palette", picture.convert("P"))
    assert only("pil").value() == picture
    assert len(cas.open_run("a/x").logged("many")) == 2
    assert only("jpg").bytes() == (here / "x.jpg").read_bytes()
    assert only("jpg").value().size == (7, 9)
    assert only("svg").value() == "<svg/>"
    assert only("palette").value().convert("RGB") == picture.convert("P").convert("RGB")


def test_audio_comes_back_to_the_bit(here: Path) -> None:
    sounds: dict[str, Any] = {
        f"{kind}/{len(shape)}/{shape[-1]}": (RNG.standard_normal(shape) * 100).astype(kind)
        for kind in ("uint8", "int16", "int32", "float32", "float64")
        for shape in ((101,), (101, 1), (57, 2))
    }
    with cas.track("a", name="x") as run:
        for key, samples in sounds.items():
            run.log_audio(key, samples, 16_000, step=1, caption="c")
        run.log({"by its type": cas.Audio(sounds["int16/1/101"], 8000)})
    for key, samples in sounds.items():
        value = only(key).value()
        assert value == cas.Audio(samples, 16_000, "c"), key
        assert value.data.dtype == samples.dtype, key
        assert value.data.shape == samples.shape, key
    assert only("by its type").value() == cas.Audio(sounds["int16/1/101"], 8000)


def test_wav_is_what_others_read(here: Path) -> None:
    import wave

    samples = np.arange(-50, 50).astype(np.int16).reshape(50, 2)
    with cas.track("a", name="x") as run:
        run.log_audio("s", samples, 44_100)
    with wave.open(io.BytesIO(only("s").bytes())) as read:
        assert read.getparams()[:4] == (2, 2, 44_100, 50)
        assert read.readframes(50) == samples.tobytes()
    (here / "x.wav").write_bytes(only("s").bytes())
    (here / "x.mp3").write_bytes(b"ID3")
    with cas.track("a", name="y") as run:
        run.log_audio("s", here / "x.wav")
        run.log_audio("m", here / "x.mp3")
    view = cas.open_run("a/y")
    assert np.array_equal(view.logged("s")[0].value().data, samples)
    assert view.logged("m")[0].bytes() == b"ID3"


def test_figures(here: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(2, 1))
    drawn.add_subplot().plot([1, 2])
    spec = go.Figure(go.Scatter(y=[1, 2, 3]), layout={"title": {"text": f"t {SECRET}"}})
    with cas.track("a", name="x") as run:
        run.log({"m": drawn, "p": spec}, step=1)
        run.log_figure("svg", drawn, format="svg")
        run.log_figure("large", drawn, dpi=200)
    assert only("m").value().size == (200, 100)
    assert only("large").value().size == (400, 200)
    assert "<svg" in only("svg").value()
    told = only("p").value()
    assert told["data"][0]["y"] == [1, 2, 3]
    assert only("p").format == "plotly.json"
    assert SECRET not in str(told)


def test_histograms(here: Path) -> None:
    import torch

    values = RNG.standard_normal(1000).astype(np.float32)
    counts, edges = np.histogram(values.astype(float), 64)
    made = cas.Histogram(np.array([1, 0, 300]), np.array([0.0, 1.0, 5.0, 5.5]))
    with cas.track("a", name="x") as run:
        run.log({"array": values, "tensor": torch.from_numpy(values), "made": made})
        run.log_histogram("ten", values, bins=10)
        run.log_histogram("special", [1.0, math.nan, math.inf, -math.inf, 3.0], bins=2)
        run.log_histogram("nothing", np.zeros(0))
        run.log_histogram("same", np.full(7, 1e300))
        run.log_histogram("wide", np.array([-1.7e308, 1.7e308]))
    assert only("array").value() == cas.Histogram(counts, edges)
    assert only("tensor").value() == only("array").value()
    assert only("made").value() == made
    assert only("array").size < 64 * 2 + 100
    assert only("ten").value().counts.sum() == 1000
    special = only("special").value()
    assert (special.counts.tolist(), special.nan, special.inf) == ([1, 1], 1, 2)
    assert only("nothing").value().counts.sum() == 0
    assert only("same").value().counts.sum() == 7
    wide = only("wide").value()
    assert wide.counts.sum() == 2
    assert np.isfinite(wide.edges).all()


WHEN = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
TABLES: dict[str, tuple[Any, dict[str, list[Any]]]] = {
    "dicts": (
        [{"a": 1, "b": "x"}, {"b": "y", "c": 0.5}],
        {"a": [1, None], "b": ["x", "y"], "c": [None, 0.5]},
    ),
    "columns": (
        {"i": np.arange(3), "f": [math.inf, -math.inf, 0.1], "t": [True, False, None]},
        {"i": [0, 1, 2], "f": [math.inf, -math.inf, 0.1], "t": [True, False, None]},
    ),
    "dates": (
        {"at": [WHEN, None], "on": [WHEN.date(), WHEN.date()], "any": [1, "x"]},
        {"at": [WHEN, None], "on": [WHEN.date()] * 2, "any": [1, "x"]},
    ),
    "pandas": (
        pd.DataFrame({"n": [1, 2], "s": ["a", None], "f": [0.1, 1e300]}),
        {"n": [1, 2], "s": ["a", None], "f": [0.1, 1e300]},
    ),
    "pandas with an index": (
        pd.DataFrame({"n": [1, 2]}, index=pd.Index(["p", "q"], name="who")),
        {"who": ["p", "q"], "n": [1, 2]},
    ),
    "pyarrow": (pa.table({"n": [1, None], "s": ["a", "b"]}), {"n": [1, None], "s": ["a", "b"]}),
    "none at all": ({}, {}),
    "large": (
        [{"n": n, "s": f"row {n}"} for n in range(2000)],
        {"n": list(range(2000)), "s": [f"row {n}" for n in range(2000)]},
    ),
}


def test_tables(here: Path) -> None:
    with cas.track("a", name="x") as run:
        for key, (table, _) in TABLES.items():
            run.log_table(key, table, step=1)
    for key, (_, columns) in TABLES.items():
        assert only(key).value() == cas.Table(columns), key


def test_a_table_of_rows_and_one_by_its_type(here: Path) -> None:
    with cas.track("a", name="x") as run:
        run.log_table("rows", [[1, "a"], [2, "b"]], columns=["n", "s"])
        run.log(
            {"frame": pd.DataFrame({"n": [1]}), "dicts": [{"n": 1}], "t": cas.Table({"n": [2]})}
        )
    assert only("rows").value().rows() == [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}]
    assert only("frame").value() == only("dicts").value() == cas.Table({"n": [1]})
    assert only("t").value().frame()["n"].tolist() == [2]
    assert len(only("t").value()) == 1


def test_embeddings_come_back_to_the_bit(here: Path) -> None:
    vectors = RNG.standard_normal((50, 8)).astype(np.float32)
    with cas.track("a", name="x") as run:
        run.log_embedding("e", vectors, labels=list(range(50)), metadata={"of": ["x"] * 50})
    value = only("e").value()
    assert value["vectors"].dtype == np.float32
    assert np.array_equal(value["vectors"], vectors)
    assert value["labels"] == list(range(50))
    assert value["metadata"] == {"of": ["x"] * 50}


def test_a_graph_is_the_structure_of_a_model(here: Path) -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    with cas.track("a", name="x") as run:
        run.log_graph(model)
    told = only("model", "graph").value()
    assert told["parameters"] == told["trainable"] == 3 * 4 + 4 + 4 + 4
    modules = {module["name"]: module for module in told["modules"]}
    assert modules["0"]["tensors"]["weight"] == {
        "shape": [4, 3],
        "dtype": "float32",
        "trainable": True,
    }
    assert modules["1"]["class"].endswith("BatchNorm1d")
    assert "trainable" not in modules["1"]["tensors"]["running_mean"]


def test_the_step_of_what_has_none_is_that_of_the_newest_metric(here: Path) -> None:
    with cas.track("a", name="x") as run:
        run.log_text("t", "before")
        run.log({"loss": 1.0}, step=7)
        run.log_text("t", "after")
        run.log({"t": "with a number", "loss": 0.5})
        run.log({"t": "alone"})
        run.log({"loss": 0.1})
        run.log({"t": "told"}, step=20)
    view = cas.open_run("a/x")
    assert [(item.value(), item.step) for item in view.logged("t")] == [
        ("before", 0),
        ("after", 7),
        ("with a number", 8),
        ("alone", 9),
        ("told", 20),
    ]
    assert view.metrics["loss"].steps.tolist() == [7, 8, 10]


def test_log_takes_nested_names_and_numbers_of_any_library(here: Path) -> None:
    import torch

    with cas.track("a", name="x") as run:
        run.log(
            {"a": {"b": {"c": 1, "t": "x"}}, "n": np.float32(2), "t": torch.tensor([3])}, step=4
        )
    view = cas.open_run("a/x")
    assert {name: view.metrics[name].values.tolist() for name in view.metrics} == {
        "a/b/c": [1],
        "n": [2],
        "t": [3],
    }
    assert only("a/b/t").value() == "x"


def test_what_makes_no_sense_is_told_and_costs_itself_alone(here: Path) -> None:
    run = cas.track("a", name="x")
    run.log({"x": object()})
    run.log_text("a/12.png", "no")
    run.log_text("t", "x", step=1.5)  # type: ignore[arg-type]
    run.log_audio("s", [1.0, 2.0])
    run.log_histogram("h", ["a"])
    run.log_table("t", [[1], [1, 2]], columns=["a"])
    run.log_table("t", {"a": [1], "b": []})
    run.log_image("i", "x.txt")
    run.log_text("fine", "x")
    with pytest.raises(TrackingError, match=r"8 calls .* first: log: x: what is a object\?"):
        run.finish()
    assert cas.open_run("a/x").keys() == {"text": {"fine": 1}}


def test_no_secret_is_stored(here: Path) -> None:
    from PIL import Image

    with cas.track("a", name="x") as run:
        run.log_text("t", f"token {SECRET}")
        run.log_text("t", f"{SECRET} " * 1000)
        run.log_image("i", Image.fromarray(PHOTO), caption=SECRET, boxes=[{"label": SECRET}])
        run.log_audio("s", np.zeros(3), 8000, caption=SECRET)
        run.log_table("t", {"a": ["harmless", SECRET], SECRET: [1, {"deep": SECRET}]})
        frame = pd.DataFrame({"a": ["harmless", SECRET], SECRET: [1, 2]})
        run.log_table("f", frame.assign(c=frame["a"].astype("category"), d=[{"x": SECRET}, None]))
        run.log_embedding("e", np.zeros((1, 1)), labels=[SECRET])
        run.log_confusion_matrix("c", matrix=[[1]], labels=[SECRET])
        run.log_artifact({"key": SECRET}, "x.json")
        run.log_artifact(io.StringIO(SECRET), "x.txt")
        run.add_metadata({"note": SECRET})
    assert SECRET.encode() not in everything(opened(here))
    assert cas.open_run("a/x").logged("f")[0].value().columns["a"][0] == "harmless"


def test_a_key_of_two_kinds_needs_the_kind(here: Path) -> None:
    with cas.track("a", name="x") as run:
        run.log_text("k", "t")
        run.log_histogram("k", [1, 2])
    view = cas.open_run("a/x")
    with pytest.raises(AmbiguousError, match="histogram, text"):
        view.logged("k")
    assert view.logged("k", "text")[0].value() == "t"
    with pytest.raises(NotFoundError, match="nowhere"):
        view.logged("nowhere")


def test_equal_runs_share_what_they_logged_but_its_times(here: Path) -> None:
    for name in ("x", "y"):
        with cas.track("a", name=name) as run:
            run.log_text("t", "hello", step=1)
            run.log_image("i", PHOTO, step=1)
            run.log_audio("s", np.frombuffer(noise(1, 80_000), np.int16), 8000)
    repo = opened(here)
    tips = [repo.commit(repo.root.refs[f"runs/a/{name}"]) for name in ("x", "y")]
    for part in (b"logged", b"logged.data"):
        assert len({repo.lookup(commit.tree, part) for commit in tips}) == 1
    assert len({repo.lookup(commit.tree, b"logged.times") for commit in tips}) == 2
    assert tips[0].payload == tips[1].payload


def test_packed_contents_that_are_many_are_payload(here: Path) -> None:
    with cas.track("a", name="x") as run:
        for step in range(300):
            run.log_text("t", noise(step, 2000).hex(), step=step)
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.payload is not None
    assert repo.lookup(commit.tree, b"logged.data") is None
    assert repo.lookup(commit.payload, b"logged.data") is not None
    items = cas.open_run("a/x").logged("t")
    assert items[123].value() == noise(123, 2000).hex()
