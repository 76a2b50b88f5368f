"""Bytes arrive whole, whoever of the threads copies them; none is at work when the call is over."""

import ctypes
import threading
from collections import deque
from typing import Any

import numpy as np
import pytest

from cas.tracking.checkpoints.copying import ALONE, PIECE, SMALL, Move, copy

SIZES = [0, 1, 7, SMALL - 1, SMALL, SMALL + 1, PIECE, PIECE + 3, 2 * PIECE - 1, ALONE + 5]


def address(array: Any) -> int:
    return int(array.ctypes.data)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_all_bytes_arrive_and_no_others_are_touched(threads: int) -> None:
    rng = np.random.default_rng(threads)
    sources = [rng.integers(0, 256, size, np.uint8) for size in SIZES]
    target = np.full(sum(SIZES) + 64 * len(SIZES), 7, np.uint8)
    moves, places, at = [], [], 0
    for source in sources:
        moves.append((address(target) + at, address(source), source.nbytes))
        places.append(at)
        at += source.nbytes + 64
    copy(moves, threads)
    for source, place in zip(sources, places, strict=True):
        assert np.array_equal(target[place : place + source.nbytes], source)
        gap = target[place + source.nbytes : place + source.nbytes + 64]
        assert set(gap.tolist()) == {7}


def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    real = ctypes.memmove

    def memmove(*move: int) -> Any:
        seen.add(threading.current_thread())
        return real(*move)

    monkeypatch.setattr(ctypes, "memmove", memmove)
    before = threading.active_count()
    source, target = np.ones(40 * PIECE, np.uint8), np.zeros(40 * PIECE, np.uint8)
    copy([(address(target), address(source), source.nbytes)], threads=3)
    assert threading.active_count() == before
    assert target.all()
    assert threading.current_thread() in seen
    assert len(seen) <= 3


def test_little_takes_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> Any:
        raise AssertionError("no thread is wanted")

    monkeypatch.setattr(threading.Thread, "start", none)
    source, target = np.ones(ALONE - 1, np.uint8), np.zeros(ALONE - 1, np.uint8)
    copy([(address(target), address(source), source.nbytes)], threads=4)
    assert target.all()


def test_where_there_are_no_more_threads_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    source, target = np.ones(ALONE, np.uint8), np.zeros(ALONE, np.uint8)
    copy([(address(target), address(source), source.nbytes)], threads=4)
    assert target.all()


def test_after_ctrl_c_nothing_is_written_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is staged next, in the same memory, would be overwritten."""
    main, pause = threading.current_thread(), threading.Event()
    under_way: deque[int] = deque()
    real = ctypes.memmove

    def memmove(*move: int) -> Any:
        if threading.current_thread() is main:
            assert pause.wait(10)
            raise KeyboardInterrupt
        under_way.append(1)
        pause.set()
        pause.wait(0.05)
        real(*move)
        under_way.pop()

    monkeypatch.setattr(ctypes, "memmove", memmove)
    source, target = np.ones(40 * PIECE, np.uint8), np.zeros(40 * PIECE, np.uint8)
    moves: list[Move] = [(address(target), address(source), source.nbytes)]
    with pytest.raises(KeyboardInterrupt):
        copy(moves, threads=2)
    assert not under_way
    assert not target.all()
