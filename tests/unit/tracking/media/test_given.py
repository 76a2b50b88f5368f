"""What users hand to the calls of a run: what is odd reads back, what is wrong names its key."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cas
from cas.errors import TrackingError
from cas.tracking.view import Item


def only(key: str) -> Item:
    (item,) = cas.open_run("a/x").logged(key)
    return item


def logged(call: Callable[[cas.Run], object]) -> cas.Run:
    """Finish a run that has made one call, which must have gone well."""
    with cas.track("a", name="x", system_metrics=False) as run:
        call(run)
    return run


def test_a_key_of_empty_texts_alone_reads_back(here: Path) -> None:
    def call(run: cas.Run) -> None:
        run.log_text("empty", "", step=0)
        run.log_text("empty", "", step=1)
        run.log_text("full", "x")

    logged(call)
    assert [item.value() for item in cas.open_run("a/x").logged("empty")] == ["", ""]
    assert only("full").value() == "x"


def test_numbers_of_libraries_are_steps_epochs_and_rates(here: Path) -> None:
    def call(run: cas.Run) -> None:
        run.log_text("t", "x", step=np.int64(7), epoch=np.float32(1.5))  # type: ignore[arg-type]
        run.log_audio("a", np.zeros(3, np.int16), rate=np.int64(8000))  # type: ignore[arg-type]

    logged(call)
    assert (only("t").step, only("t").epoch) == (7, 1.5)
    assert only("a").value().rate == 8000


def test_what_is_changed_right_after_a_call_is_stored_as_it_was(here: Path) -> None:
    cells, column, numbers = [1], [1, 2], np.arange(3.0)
    frame = pd.DataFrame({"a": [[1], [2]], "s": ["x", "y"]})
    borrowed = pa.table({"n": numbers})  # it lies in the memory of the array
    boxes = [{"x": 1}]
    with cas.track("a", name="x", system_metrics=False) as run:
        run.log_table("rows", [{"a": cells}])
        run.log_table("columns", {"v": column})
        run.log_table("frame", frame)
        run.log_table("borrowed", borrowed)
        run.log_image("image", np.zeros((2, 2), np.uint8), boxes=boxes)
        cells.append(9)
        column.append(9)
        frame["a"].iloc[0].append(9)
        frame.loc[0, "s"] = "z"
        numbers[:] = 9
        boxes[0]["x"] = 9
    assert only("rows").value().columns == {"a": [[1]]}
    assert only("columns").value().columns == {"v": [1, 2]}
    assert only("frame").value().columns == {"a": [[1], [2]], "s": ["x", "y"]}
    assert only("borrowed").value().columns == {"n": [0.0, 1.0, 2.0]}
    assert only("image").options["boxes"] == [{"x": 1}]


class OwnFrame(pd.DataFrame):  # type: ignore[misc]
    """A frame as libraries make one of their own, geopandas for instance."""


def test_frames_that_parquet_takes_none_of(here: Path) -> None:
    def call(run: cas.Run) -> None:
        run.log_table("mixed", pd.DataFrame({"a": [1, "x", None]}))
        run.log_table("complex", pd.DataFrame({"a": [1j]}))
        run.log_table("batch", pa.record_batch({"a": [1, 2]}))
        run.log_table("cells", [{"a": np.arange(2), "b": {1}, "c": b"x"}])
        run.log({"own": OwnFrame({"a": [1]})})

    logged(call)
    assert only("mixed").value().columns == {"a": [1, "x", None]}
    assert only("mixed").format == "json"
    assert only("complex").value().columns == {"a": ["1j"]}
    assert only("batch").value().columns == {"a": [1, 2]}
    assert only("cells").value().columns == {"a": [[0, 1]], "b": ["{1}"], "c": ["b'x'"]}
    assert (only("own").kind, only("own").value().columns) == ("table", {"a": [1]})


def test_images_of_pil_in_every_mode(here: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    modes = ("1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I", "F", "I;16", "YCbCr", "HSV", "PA",
             "La", "RGBa", "RGBX")  # fmt: skip

    def call(run: cas.Run) -> None:
        for mode in modes:
            run.log_image(f"mode {mode}", pil.new(mode, (3, 2)))
        half = pil.new("F", (2, 1))
        half.putpixel((1, 0), 0.5)
        run.log_image("half", half)

    logged(call)
    for mode in modes:
        assert only(f"mode {mode}").value().size == (3, 2), mode
    assert np.asarray(only("half").value()).tolist() == [[0, 128]]


def test_tensors_that_numpy_has_no_form_for(here: Path) -> None:
    torch = pytest.importorskip("torch")

    def call(run: cas.Run) -> None:
        run.log({"sparse": torch.eye(3).to_sparse()})
        run.log({"bfloat": torch.ones(3, requires_grad=True).bfloat16()})
        run.log_image("image", torch.ones(3, 2, 2, dtype=torch.bfloat16))

    logged(call)
    assert only("sparse").value().counts.sum() == 9
    assert only("bfloat").value().counts.sum() == 3
    assert only("image").value().shape == (2, 2, 3)


def test_classes_and_facts_in_columns_of_pandas(here: Path) -> None:
    def call(run: cas.Run) -> None:
        said = pd.Series(["cat", "dog"], dtype=object)
        run.log_confusion_matrix("confusion", said, said)
        facts = {"n": pd.Series([1, 2]), "x": np.array(["p", "q"])}
        run.log_embedding("words", np.zeros((2, 3)), metadata=facts)

    logged(call)
    assert only("confusion").value() == {"labels": ["cat", "dog"], "matrix": [[1, 0], [0, 1]]}
    assert only("words").value()["metadata"] == {"n": [1, 2], "x": ["p", "q"]}


PIXELS = np.zeros((2, 2))
WRONG: dict[str, tuple[Callable[[cas.Run], object], str]] = {
    "axes": (lambda run: run.log_image("k", PIXELS, axes="XYZ"), "HW, HWC or CHW, not 'XYZ'"),
    "axes of another shape": (lambda run: run.log_image("k", PIXELS, axes="CHW"), "not the shape"),
    "nothing to see": (lambda run: run.log_image("k", np.zeros((0, 4))), "has pixels"),
    "boxes": (lambda run: run.log_image("k", PIXELS, boxes=5), "boxes of an image"),  # type: ignore[arg-type]
    "complex sound": (lambda run: run.log_audio("k", np.zeros(2, complex), 8), "complex"),
    "a rate": (lambda run: run.log_audio("k", np.zeros(2), 0.5), "whole number"),  # type: ignore[arg-type]
    "columns twice": (
        lambda run: run.log_table("k", pd.DataFrame([[1, 2]], columns=["a", "a"])),
        "more than one column 'a'",
    ),
    "edges of NaN": (
        lambda run: run.log_histogram("k", cas.Histogram([1], [0, math.nan])),
        "edges of a histogram",
    ),
    "edges going down": (
        lambda run: run.log_histogram("k", cas.Histogram([1, 1], [2, 1, 0])),
        "edges of a histogram",
    ),
    "classes of two types": (
        lambda run: run.log_confusion_matrix("k", ["a", "b"], [0, 1]),
        "both are texts",
    ),
    "an axis of matplotlib": (lambda run: run.log_figure("k", axis()), "its .figure is"),
    "an epoch": (lambda run: run.log_text("k", "x", epoch="a"), "an epoch is a number"),  # type: ignore[arg-type]
}


def axis() -> Any:
    figure = pytest.importorskip("matplotlib.figure")
    return figure.Figure().add_subplot()


@pytest.mark.parametrize(("call", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_its_key(
    here: Path, call: Callable[[cas.Run], object], reason: str
) -> None:
    run = cas.track("a", name="x", system_metrics=False)
    call(run)
    run.log_text("after", "it goes on")
    with pytest.raises(TrackingError, match=rf"1 call .* log_\w+: k: .*{reason}"):
        run.finish()
    assert list(cas.open_run("a/x").keys()) == ["text"]


def test_one_wrong_value_costs_the_others_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = cas.track("a", name="x", system_metrics=False)
    run.log({"bad": None, "raw": b"x", "loss": 1.0, "text": "x", "list": [1, 2]})
    with pytest.raises(TrackingError, match=r"2 calls .* bad: what is a NoneType"):
        run.finish()
    view = cas.open_run("a/x")
    assert view.metrics["loss"].values.tolist() == [1.0]
    assert view.keys() == {"histogram": {"list": 1}, "text": {"text": 1}}
    assert capsys.readouterr().err.count("warning") == 1


def test_what_fails_behind_the_loop_names_its_key(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cas.tracking.media import image

    def broken(given: Any) -> bytes:
        raise OSError("no such pixels")

    monkeypatch.setattr(image, "_png", broken)
    run = cas.track("a", name="x", system_metrics=False)
    run.log_image("val/sample", PIXELS)
    with pytest.raises(TrackingError, match="log_image: val/sample: OSError: no such pixels"):
        run.finish()


def test_the_first_failure_of_each_call_is_told_and_very_many_fill_no_memory(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = cas.track("a", name="x", system_metrics=False)
    for _ in range(500):
        run.log_image("first", 5)
        run.log_text("../second", "x")
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert ["first" in told[0], "second" in told[1], len(told)] == [True, True, 2]
    assert len(run._problems) < 200
    with pytest.raises(TrackingError, match=r"1000 calls .* first: log_image: first: "):
        run.finish()
