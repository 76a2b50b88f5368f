import ctypes
import errno
import os
from collections.abc import Sequence
from mmap import PAGESIZE, mmap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.backend import sink as sinks
from cas.backend import stage
from cas.backend.base import Span
from cas.backend.files import FileOps
from cas.backend.local import LocalBackend, create_local
from cas.backend.stage import DirectFile, DirectReads
from cas.errors import StorageFullError
from cas.ids import Buffer
from tests.support.noise import noise

DATA = noise("stage", 12 << 20)
EDGES = [1, PAGESIZE - 1, PAGESIZE, PAGESIZE + 1, sinks.DIRECT_FROM, stage.STAGE, stage.STAGE + 1]
sizes = st.lists(st.sampled_from(EDGES) | st.integers(0, 2 << 20), max_size=4)


class Disk(FileOps):
    """A disk that takes only whole pages past the page cache, from aligned memory."""

    def __init__(self) -> None:
        self.direct = False
        self.takes = True
        self.passed = 0
        self.at = 0
        self.asked: list[bool] = []

    def set_direct(self, fd: int, on: bool) -> bool:
        self.asked.append(on)
        self.direct = on and self.takes
        return self.takes or not on

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        if self.direct:
            assert len(buffers) == 1
            view = memoryview(buffers[0])
            address = ctypes.addressof(ctypes.c_char.from_buffer(view))
            assert [address % PAGESIZE, view.nbytes % PAGESIZE, self.at % PAGESIZE] == [0, 0, 0]
            self.passed += view.nbytes
        written = os.writev(fd, buffers)
        self.at += written
        return written


class Alternately(Disk):
    """It takes a part of what it is given, at times an odd one."""

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        view = memoryview(buffers[0])
        if self.direct and self.at % PAGESIZE:
            raise OSError(errno.EINVAL, "invalid argument")
        part = len(view) // 3 if len(view) > 3 * PAGESIZE else len(view)
        written = os.write(fd, view[:part])
        self.at += written
        return written


class Stubborn(Disk):
    """It says that it takes direct writes, and then refuses each."""

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        if self.direct:
            raise OSError(errno.EINVAL, "invalid argument")
        return super().write(fd, buffers)


class Full(Disk):
    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        if self.at > 2 << 20:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write(fd, buffers)


def written(backend: LocalBackend, lengths: Sequence[int], key: str) -> bytes:
    sink, at = backend.create(key), 0
    for length in lengths:
        sink.write([DATA[at : at + length // 2], DATA[at + length // 2 : at + length]])
        at += length
    sink.seal()
    return (backend.root / key).read_bytes()


@pytest.mark.parametrize("kind", [FileOps, Disk, Alternately, Stubborn])
def test_a_file_holds_what_was_written(kind: type[FileOps], tmp_path: Path) -> None:
    number = iter(range(10_000))

    @given(lengths=sizes)
    def check(lengths: list[int]) -> None:
        backend = create_local(tmp_path, ops=kind())
        key = f"packs/{next(number)}"
        assert written(backend, lengths, key) == DATA[: sum(lengths)]
        (tmp_path / key).unlink()

    check()


def test_a_large_file_passes_the_page_cache_by(tmp_path: Path) -> None:
    ops = Disk()
    written(create_local(tmp_path, ops=ops), [sinks.DIRECT_FROM, 8_000_000], "packs/1")
    assert ops.passed > 8_000_000 - 2 * PAGESIZE


def test_a_small_file_is_left_in_the_page_cache(tmp_path: Path) -> None:
    ops = Disk()
    written(create_local(tmp_path, ops=ops), [sinks.DIRECT_FROM // 2], "packs/1")
    assert ops.passed == 0


def test_a_system_without_direct_writes_is_asked_once(tmp_path: Path) -> None:
    ops = Disk()
    ops.takes = False
    lengths = [sinks.DIRECT_FROM, 8_000_000]
    assert written(create_local(tmp_path, ops=ops), lengths, "packs/1") == DATA[: sum(lengths)]
    assert ops.asked == [True]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageFullError):
        written(create_local(tmp_path, ops=Full()), [2_000_000, 9_000_000], "packs/1")
    assert not (tmp_path / "packs/1").exists()


@pytest.mark.parametrize("waits", [True, False])
def test_only_who_waits_for_the_disk_waits_for_a_slow_one(
    waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops, clock = Disk(), iter(range(1000))
    monkeypatch.setattr("cas.backend.stage.time.monotonic", lambda: next(clock))
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    file = DirectFile(ops, fd, waits=waits)
    memory = memoryview(mmap(-1, 8 * PAGESIZE))
    for start in range(0, 8, 2):
        file.write(memory, start * PAGESIZE, (start + 2) * PAGESIZE)
    os.close(fd)
    assert ops.passed == (8 if waits else 2) * PAGESIZE


@given(start=st.integers(0, 40_000), length=st.integers(0, 300_000))
def test_reading_past_the_page_cache_gives_the_same(
    start: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "direct"
    if not root.exists():
        create_local(root).put_new("packs/1", DATA[:200_001])
    backend = LocalBackend(root)
    span = Span(start, min(length, 200_001 - start))
    assert backend.uncached().read("packs/1", [span]) == backend.read("packs/1", [span])


def test_a_file_system_without_direct_reads_is_read_as_ever(tmp_path: Path) -> None:
    class Without(FileOps):
        def open_direct(self, path: str) -> int:
            raise OSError(errno.EINVAL, "invalid argument")

    backend = create_local(tmp_path)
    backend.put_new("packs/1", DATA[:10_001])
    assert LocalBackend(tmp_path, ops=DirectReads(Without())).read("packs/1", [Span(5)]) == [
        DATA[5:10_001]
    ]
