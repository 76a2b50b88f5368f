"""Copying bytes as fast as memory is: with a few threads, and without giving up the interpreter.

A training loop waits for these copies. One core does not use up the memory's bandwidth, so large
pieces are shared out. Whoever lets go of the interpreter may have to wait for it: threads that
encode the checkpoint before need it too. So it is held over small pieces, of which there are many.
"""

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from cas.store.pool import workers

Move = tuple[int, int, int]  # to this address, from that one, so many bytes

SMALL: Final = 256 * 1024  # bytes that are copied before another thread would wait for them
PIECE: Final = 8 * 1024 * 1024  # a thread that is held up holds up the others for no more than this
ALONE: Final = 4 * PIECE  # below it to start threads takes longer than they save
THREADS: Final = 4  # of them together, as one to four use up what memory gives

_holding: Final[Callable[[int, int, int], object]] = ctypes.PYFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)(("memmove", ctypes.PyDLL(None)))


def copy(moves: Iterable[Move], threads: int | None = None) -> None:
    """Carry out moves that do not overlap; all are done, and nothing is at work, when this returns.

    Whoever calls this vouches for the addresses: that there is memory, and that it stays there.
    """
    large: deque[Move] = deque()
    small: list[Move] = []
    for move in moves:
        if move[2] <= SMALL:
            small.append(move)
        else:
            large.extend(_pieces(move))
    count = min(THREADS, workers()) if threads is None else threads
    alone = sum(piece[2] for piece in large) < ALONE
    helpers = [_helper(large) for _ in range(0 if alone else min(count, len(large)) - 1)]
    try:
        with suppress(RuntimeError):  # the system has no more threads: then fewer do
            for helper in helpers:
                helper.start()
        for to, source, size in small:
            _holding(to, source, size)
        _work(large)
    finally:
        large.clear()  # where this is interrupted, what is left is not wanted any more
        _join(helpers)


def _pieces(move: Move) -> Iterator[Move]:
    to, source, size = move
    for at in range(0, size, PIECE):
        yield to + at, source + at, min(PIECE, size - at)


def _helper(moves: deque[Move]) -> threading.Thread:
    return threading.Thread(target=_work, args=(moves,), name="cas-copy", daemon=True)


def _work(moves: deque[Move]) -> None:
    with suppress(IndexError):  # there is nothing left
        while True:
            ctypes.memmove(*moves.popleft())


def _join(helpers: list[threading.Thread]) -> None:
    """Wait for all, also when Ctrl-C comes: what they write to is used again right after.

    One that was not started, or comes to nothing that is left, does nothing.
    """
    try:
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    except BaseException:
        _join(helpers)
        raise
