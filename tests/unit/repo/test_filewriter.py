import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.repo.trees.filewriter import WINDOW, FileWriter
from tests.support.noise import noise

DATA = noise("file writer", 3 * WINDOW + 12345)
sizes = st.lists(
    st.sampled_from([0, 1, 4095, 4096, 4097, WINDOW - 1, WINDOW, WINDOW + 1])
    | st.integers(0, 2 << 20),
    max_size=8,
)


def test_a_file_holds_what_was_filled(tmp_path: Path) -> None:
    path = tmp_path / "file"

    @given(lengths=sizes, late=st.integers(0, 4))
    def check(lengths: list[int], late: int) -> None:
        """Fill the memory `late` pieces after it was given out, the last one first."""
        given_out: list[tuple[memoryview, int]] = []
        at = 0
        with opened(path) as fd, FileWriter(fd) as file:
            for wanted in lengths:
                length = min(wanted, len(DATA) - at)
                given_out.append((file.room(length), at))
                at += length
                if len(given_out) > late:
                    fill(file, given_out)
            fill(file, given_out)
            file.finish()
        assert path.read_bytes() == DATA[:at]

    check()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        yield fd
    finally:
        os.close(fd)


def fill(file: FileWriter, given_out: list[tuple[memoryview, int]]) -> None:
    for memory, at in reversed(given_out):
        memory[:] = DATA[at : at + len(memory)]
    for memory, _ in given_out:
        file.filled(len(memory))
    given_out.clear()


def test_memory_is_used_again(tmp_path: Path) -> None:
    seen = set()
    with opened(tmp_path / "file") as fd, FileWriter(fd) as file:
        for _ in range(24):
            memory = file.room(WINDOW // 2)
            seen.add(id(memory.obj))
            file.filled(len(memory))
        file.finish()
    assert len(seen) <= 4
    assert (tmp_path / "file").stat().st_size == 12 * WINDOW


def test_a_full_disk_is_raised_before_the_end() -> None:
    with opened(Path("/dev/full")) as fd, FileWriter(fd) as file:
        file.filled(len(file.room(10_000)))
        with pytest.raises(OSError, match="No space left"):
            file.finish()
