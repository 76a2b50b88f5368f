"""What is shown to a run goes behind its back: copied at once, stored in batches."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cas
from cas.errors import StorageFullError, TrackingError
from cas.tracking.shown import outbox
from cas.tracking.shown.outbox import Outbox, pause
from tests.support.runs import eventually, opened

Capture = pytest.CaptureFixture[str]


def pixels(number: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.full((8, 8, 3), number % 256, np.uint8)


def stored(run: cas.Run) -> int:
    return run.repo.refresh().seq


def test_a_pause_grows_with_the_batch_and_with_the_run() -> None:
    assert pause(0.01, 10) == 1.0
    assert pause(0.2, 10) == 4.0
    assert pause(0.01, 600) == 3.0
    assert pause(60, 10) == pause(0.01, 1e6) == 10.0


def test_many_images_are_few_transactions(here: Path) -> None:
    run = cas.track("a", name="x")
    before = stored(run)
    began = time.monotonic()
    for number in range(500):
        run.log_image("samples", pixels(number), step=number)
    assert time.monotonic() - began < 5
    run.finish()
    took = time.monotonic() - began
    assert stored(run) - before <= took + 2
    view = cas.open_run("a/x")
    assert view.keys() == {"image": {"samples": 500}}
    items = view.logged("samples")
    assert [item.step for item in items] == list(range(500))
    assert np.array_equal(items[77].value(), pixels(77))


def test_a_call_neither_waits_for_the_disk_nor_sees_later_changes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cas.track("a", name="x")
    stuck, threads = threading.Event(), set[str]()
    add = run._live.add_logged

    def slow(write: Callable[..., object]) -> object:
        threads.add(threading.current_thread().name)
        stuck.wait(20)
        return add(write)  # type: ignore[arg-type]

    monkeypatch.setattr(run._live, "add_logged", slow)
    array = pixels(1)
    values = np.arange(10.0)
    run.log_image("samples", array, step=1)
    run.log_histogram("h", values, step=1)
    array[:] = 9
    values[:] = -1
    run.log_image("samples", array, step=2)
    stuck.set()
    run.finish()
    assert threads <= {"cas-outbox", "MainThread"}
    first, second = cas.open_run("a/x").logged("samples")
    assert np.array_equal(first.value(), pixels(1))
    assert np.array_equal(second.value(), array)
    (histogram,) = cas.open_run("a/x").logged("h")
    assert histogram.value().edges[0] == 0


def test_small_things_are_in_the_journal_within_a_second(here: Path) -> None:
    run = cas.track("a", name="x")
    before = stored(run)
    run.log_text("said", "hello", step=4)
    eventually(lambda: cas.open_run("a/x").keys(), "it is in the journal")
    (item,) = cas.open_run("a/x").logged("said")
    assert (item.step, item.value()) == (4, "hello")
    assert stored(run) == before
    run.finish()


def test_what_cannot_be_encoded_costs_itself_alone(here: Path, capsys: Capture) -> None:
    run = cas.track("a", name="x")
    run.log_image("samples", np.zeros((4, 4), complex))
    run.log_image("samples", pixels(1), step=2)
    run.log_image("samples", np.zeros((4, 4, 4, 4)))
    with pytest.raises(TrackingError, match=r"2 calls of run a/x failed"):
        run.finish()
    assert [item.step for item in cas.open_run("a/x").logged("samples")] == [2]


def test_a_store_that_is_full_is_asked_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(outbox, "MOST_PAUSE", 0.1)
    run = cas.track("a", name="x")
    add, tries = run._live.add_logged, list[int]()

    def full(write: Callable[..., object]) -> object:
        tries.append(1)
        if len(tries) < 3:
            raise StorageFullError("the disk is full")
        return add(write)  # type: ignore[arg-type]

    monkeypatch.setattr(run._live, "add_logged", full)
    run.log_image("samples", pixels(1), step=0)
    run.log_text("samples", "of another kind", step=0)
    deadline = time.monotonic() + 20
    while len(tries) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    run.finish()
    assert cas.open_run("a/x").keys() == {"image": {"samples": 1}, "text": {"samples": 1}}
    assert capsys.readouterr().err.count("the disk is full") == 1


def test_what_is_never_stored_is_told_at_the_end(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cas.track("a", name="x")

    def full(write: Callable[..., object]) -> object:
        raise StorageFullError("the disk is full")

    monkeypatch.setattr(run._live, "add_logged", full)
    run.log_image("samples", pixels(1), step=3)
    run.log({"loss": 1.0})
    with pytest.raises(TrackingError, match=r"log_image: samples at step 3 could not be stored"):
        run.finish()
    view = cas.open_run("a/x")
    assert view.keys() == {}
    assert list(view.metrics) == ["loss"]


def test_a_queue_that_stays_full_refuses_and_does_not_wait_each_time(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ROOM", 1000)
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 0.2)
    run = cas.track("a", name="x")
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_pass", lambda self, *, now: None)
        run.log_image("samples", pixels(0), step=0)
        began = time.monotonic()
        for step in range(1, 1 + 20):
            run.log_image("samples", np.zeros((40, 40, 3), np.uint8), step=step)
        assert 0.2 < time.monotonic() - began < 2
    with pytest.raises(TrackingError, match=r"20 calls .* samples was left out"):
        run.finish()
    assert len(cas.open_run("a/x").logged("samples")) == 1


def test_more_packed_bytes_than_a_run_may_have_become_files(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PACKED_TOTAL", 100)
    with cas.track("a", name="x") as run:
        for step in range(4):
            run.log_text("t", "x" * 40, step=step)
    repo = opened(here)
    view = cas.open_run("a/x")
    assert [item.value() for item in view.logged("t")] == ["x" * 40] * 4
    payload = repo.commit(view.commit).payload
    assert payload is not None
    assert [
        repo.lookup(payload, f"media/text/t/{step}.txt".encode()) is not None for step in range(4)
    ] == [
        False,
        False,
        True,
        True,
    ]


def test_a_forked_child_stores_nothing(here: Path) -> None:
    run = cas.track("a", name="x")
    run.log_text("t", "parent", step=0)
    child = os.fork()
    if child == 0:
        run.log_text("t", "child", step=1)
        os._exit(0)
    os.waitpid(child, 0)
    run.finish()
    assert [item.value() for item in cas.open_run("a/x").logged("t")] == ["parent"]


def test_an_interrupted_end_loses_nothing_that_was_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cas.track("a", name="x")
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_pass", lambda self, *, now: None)
        for step in range(3):
            run.log_image("samples", pixels(step), step=step)
        time.sleep(0.1)
    interrupted = list[bool]()
    encode = Outbox._encode

    def ctrl_c(self: Outbox, parcel: outbox.Parcel) -> None:
        if parcel.row.step == 1 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        encode(self, parcel)

    monkeypatch.setattr(Outbox, "_encode", ctrl_c)
    assert run._outbox is not None
    run._outbox._halted.set()
    run._outbox._thread.join()
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    run.finish()
    assert [item.step for item in cas.open_run("a/x").logged("samples")] == [0, 1, 2]
