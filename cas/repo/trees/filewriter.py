"""A large file written from front to back, while what comes next is still decoded."""

from collections import deque
from dataclasses import dataclass
from functools import partial
from mmap import PAGESIZE, mmap
from typing import Final, Self

from cas.backend.files import OPS
from cas.backend.stage import DirectFile
from cas.store.pool import Lane

WINDOW: Final = 8 * 1024 * 1024


@dataclass(slots=True)
class _Window:
    """Some of the file; `memory[:start]` is for what the window before leaves of its last page."""

    memory: memoryview
    start: int
    end: int
    filled: int


class FileWriter:
    """Gives out memory for the next bytes of a file, and writes it once it is filled.

    Memory is filled by anyone in any order; that it is filled is told in order. Windows are
    written on a thread of their own, which has ended when this is left.
    """

    def __init__(self, fd: int) -> None:
        self._file = DirectFile(OPS, fd, waits=False)
        self._lane = Lane()
        self._windows: deque[_Window] = deque()
        self._spare: list[memoryview] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lane.drop()

    def room(self, size: int) -> memoryview:
        """Return memory for the next `size` bytes."""
        last = self._windows[-1] if self._windows else None
        if last is None or last.end + size > len(last.memory):
            last = self._next(last.end % PAGESIZE if last else 0, size)
        last.end += size
        return last.memory[last.end - size : last.end]

    def filled(self, size: int) -> None:
        """Say that the memory is filled that was given out first of what is not filled yet."""
        if size:
            window = next(window for window in self._windows if window.filled < window.end)
            window.filled += size
            self._write_out()

    def finish(self) -> None:
        """Write what is left; everything given out is filled."""
        if self._windows:
            window = self._windows.pop()
            self._lane.put(partial(self._file.write, window.memory, 0, window.end))
        self._lane.settle()

    def _next(self, start: int, size: int) -> _Window:
        wanted = max(WINDOW, start + size)
        spare = wanted == WINDOW and self._spare
        memory = self._spare.pop() if spare else memoryview(mmap(-1, wanted))
        window = _Window(memory, start, start, start)
        self._windows.append(window)
        self._write_out()
        return window

    def _write_out(self) -> None:
        """Write the windows that are filled and have one behind them."""
        while len(self._windows) > 1 and self._windows[0].filled == self._windows[0].end:
            window = self._windows.popleft()
            self._lane.put(partial(self._give, window, self._windows[0]))

    def _give(self, window: _Window, behind: _Window) -> None:
        whole = window.end - window.end % PAGESIZE
        behind.memory[: behind.start] = window.memory[whole : window.end]
        self._file.write(window.memory, 0, whole)
        if len(window.memory) == WINDOW:
            self._spare.append(window.memory)
