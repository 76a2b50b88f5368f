"""Past the page cache: whole pages of aligned memory, straight to the disk and from it.

What goes to the disk anyway gains nothing from a second copy in the page cache, and loses much
where the system has to find new pages for it. Linux only, and where the file system takes it.
"""

import errno
import threading
import time
from mmap import PAGESIZE, mmap
from typing import Final

from cas.backend.files import FileOps
from cas.ids import Buffer

STAGE: Final = 4 * 1024 * 1024
SLOW: Final = 256 * 1024 * 1024  # bytes a second, below which a disk is not waited for


class DirectFile:
    """One open file, written from front to back in whole pages, past the page cache where it can.

    `waits` says whether somebody waits for the disk anyway: otherwise a slow one is left to the
    system, which writes later.
    """

    def __init__(self, ops: FileOps, fd: int, *, waits: bool) -> None:
        self._ops = ops
        self._fd = fd
        self._waits = waits
        self._direct = False
        self._refused = False

    def write(self, memory: memoryview, start: int, end: int) -> None:
        """Append `memory[start:end]`, which begins as far into a page there as in the file."""
        first = min(end, -start % PAGESIZE + start)
        last = max(first, end - end % PAGESIZE)
        self._append(memory[start:first], direct=False)
        self._append(memory[first:last], direct=True)
        self._append(memory[last:end], direct=False)

    def _append(self, view: memoryview, *, direct: bool) -> None:
        begun, size = time.monotonic(), len(view) if direct else 0
        while view:
            self._switch(direct and not self._refused)
            try:
                written = self._ops.write(self._fd, [view])
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self._refused = True  # it wants another alignment than ours
                continue
            if written <= 0:
                raise OSError(errno.EIO, "nothing was written")
            view = view[written:]
        if size and not self._waits:
            self._refused |= size < SLOW * (time.monotonic() - begun)

    def _switch(self, direct: bool) -> None:
        if self._direct != direct:
            took = self._ops.set_direct(self._fd, direct)
            self._refused |= not took
            self._direct = direct and took


class DirectReads(FileOps):
    """Reading past the page cache, for who reads a lot and each byte once.

    What cannot be read so is read as ever.
    """

    def __init__(self, ops: FileOps) -> None:
        self._ops = ops
        self._kept = threading.local()

    def open_read(self, path: str) -> int:
        """Open the file for reading."""
        try:
            return self._ops.open_direct(path)
        except OSError:
            return self._ops.open_read(path)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        if not length:
            return b""
        skew = offset % PAGESIZE
        size = -(-(skew + length) // PAGESIZE) * PAGESIZE
        memory: memoryview | None = getattr(self._kept, "memory", None)
        if memory is None or len(memory) < size:  # new pages cost more than the copy
            memory = self._kept.memory = memoryview(mmap(-1, max(size, STAGE)))
        have = 0
        while have <= skew:  # what comes before the page's end may be all of a short read
            more = self._ops.pread_into(fd, memory[have:size], offset - skew + have)
            if not more:
                break
            have += more
        return bytes(memory[skew : min(have, skew + length)])


class Stage:
    """Buffers of any size on their way to one file, whose end is at `at`.

    The memory is shared with forked children, so that none of them copies a page while the disk
    reads it.
    """

    def __init__(self, file: DirectFile, at: int) -> None:
        import numpy as np

        self._file = file
        self._memory = memoryview(mmap(-1, STAGE))
        self._array = np.frombuffer(self._memory, np.uint8)
        self._start = self._end = at % PAGESIZE

    def add(self, data: Buffer) -> int:
        """Take these bytes, and write out what is full; return how many they are."""
        import numpy as np

        # NumPy lets go of the interpreter while it copies.
        new = np.frombuffer(data, np.uint8)
        done = 0
        while done < len(new):
            part = new[done : done + STAGE - self._end]
            self._array[self._end : self._end + len(part)] = part
            self._end += len(part)
            done += len(part)
            if self._end == STAGE:
                self.flush()
        return done

    def flush(self) -> None:
        """Write out everything that was taken."""
        self._file.write(self._memory, self._start, self._end)
        self._start = self._end = self._end % PAGESIZE
