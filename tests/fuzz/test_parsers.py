"""Parsers take what is valid, and answer everything else with an error that has a name."""

import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cas.codec import compress, rows
from cas.errors import CorruptionError
from cas.objects import canonical
from cas.objects.kind import Kind
from cas.store import packed
from tests.fuzz import codecs, containers, fuzzing, parsers
from tests.fuzz.fuzzing import BrokenError, Target, fuzz
from tests.support.specimen import build
from tests.support.torture import amount, tell

NAMES = [
    "record", "pack", "recipe", "index", "root", "snapshot", "manifest", "tree", "commit", "state",
    "zstd", "planes", "delta", "journal", "frames", "config", "format", "stat cache", "document",
    "safetensors", "npy", "zip", "npz", "gguf", "pickle",
]  # fmt: skip
INPUTS = amount(2_000, 1_000_000)


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Target]]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        place = Path(name) / "written"
        place.mkdir()
        stored = parsers.targets(build(Path(name)), place)
        yield stored | codecs.targets() | containers.targets()


@pytest.mark.torture
@pytest.mark.parametrize("name", NAMES)
def test_only_errors_with_a_name_in_bounded_memory_and_time(
    targets: dict[str, Target], name: str
) -> None:
    told = fuzz(name, targets[name], INPUTS)
    tell(f"fuzz {name}: {INPUTS:,} inputs, {len(told):,} different outcomes, none broken")
    # Inputs that are all refused at the first look, or all taken, are none.
    assert len(told) >= 3
    assert any(isinstance(outcome, str) for outcome in told)
    assert any(isinstance(outcome, tuple) for outcome in told)


def test_no_parser_is_left_out(targets: dict[str, Target]) -> None:
    assert sorted(targets) == sorted(NAMES)


def _trusting(data: bytes) -> object:
    (length,) = struct.unpack_from("<I", data.ljust(4, b"\0"))
    return len(bytearray(length))


def _careless(data: bytes) -> object:
    (length,) = struct.unpack_from("<I", data)
    if length != len(data) - 4:
        raise CorruptionError("another length")
    return length


def _slow(data: bytes) -> object:
    if data[:1] == b"\xff":
        time.sleep(0.2)
    return len(data)


@pytest.mark.parametrize("parser", [_trusting, _careless, _slow])
def test_a_parser_that_trusts_is_found(
    parser: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "SECONDS", 0.15)
    with pytest.raises(BrokenError):
        fuzz("planted", Target([struct.pack("<I", 4) + b"data"], parser), 2_000)


class TestPlanted:
    """Checks that the parsers make are needed: without one, an input goes too far."""

    def broken(self, targets: dict[str, Target], name: str) -> bool:
        with pytest.raises(BrokenError):
            fuzz(name, targets[name], 20_000)
        return True

    def test_the_size_that_a_frame_states(
        self, targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compress, "check_frame", lambda body, size: None)
        monkeypatch.setattr(rows, "check_frame", lambda body, size: None)
        assert self.broken(targets, "zstd")

    def test_types_and_nesting_of_canonical_bytes(
        self, targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(canonical, "_inspect", lambda value: None)
        assert self.broken(targets, "tree")

    def test_the_id_of_what_was_decoded(
        self, targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Anything(bytes):
            __slots__ = ()

            def __ne__(self, other: object) -> bool:
                return False

            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = bytes.__hash__

        right = {kind: lambda data: Anything() for kind in Kind}
        monkeypatch.setattr(packed, "ID_OF", right)
        assert self.broken(targets, "pack")
