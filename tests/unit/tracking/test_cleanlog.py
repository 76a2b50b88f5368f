"""What a program prints is filtered before it is kept, whichever way its pieces come."""

import io
import os
import random
from pathlib import Path

import pytest

from cas.tracking.privacy import cleanlog
from cas.tracking.privacy.cleanlog import CleanLog, removed_before
from cas.tracking.privacy.secrets import REMOVED, UNKNOWN

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
KEY_LINE = "MIIEpAIBAAKCAQEAx7Zq0c3nB5vT9wK2mJ8fLr4DsQyWgHuEiOaPbNcMdXeRf6G1"
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_LINE}\n{KEY_LINE}\n-----END RSA PRIVATE KEY-----\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize("seed", range(8))
def test_two_streams_in_pieces_of_any_size_leave_no_secret(path: Path, seed: int) -> None:
    draw = random.Random(seed)
    with open(path, "wb", buffering=0) as file:
        log = CleanLog(file)
        streams = [log.stream(), log.stream()]
        lines = [f"step {n} {TOKEN}\n" for n in range(40)]
        rest = [("".join(lines) + KEY + "end\n").encode() for _ in streams]
        while any(rest):
            at = draw.choice([at for at, text in enumerate(rest) if text])
            size = draw.choice([1, 7, 50, 500])
            streams[at].feed(rest[at][:size])
            rest[at] = rest[at][size:]
            kept = path.read_text()  # and at no moment
            assert TOKEN[8:20] not in kept
            assert KEY_LINE[:20] not in kept
        for stream in streams:
            stream.end()
    kept = path.read_text()
    for number in range(40):
        assert kept.count(f"step {number} {REMOVED}\n") == 2
    assert kept.count("end\n") == 2
    assert [one.kind for one in log.taken].count("GitHub token") == 80
    assert [one.kind for one in log.taken].count("private key") == 2
    numbered = kept.splitlines()
    for one in log.taken:
        assert REMOVED in numbered[one.line - 1]


def test_lines_are_kept_at_once_and_the_rest_at_the_end(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        stream = CleanLog(file).stream()
        stream.feed(b"one\ntw")
        assert path.read_bytes() == b"one\n"
        stream.feed(b"o\r\xff\n\n-----BEGIN PRIVATE KEY-----\nno key follows\n")
        assert path.read_bytes() == b"one\ntwo\r\xff\n\n"  # it may go on with one
        stream.end()
        stream.end()
    assert path.read_bytes().endswith(b"\xff\n\n-----BEGIN PRIVATE KEY-----\nno key follows\n")


def test_what_has_no_end_is_kept_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanlog, "MAX_LINE", 100)
    monkeypatch.setattr(cleanlog, "MAX_KEY", 200)
    with open(path, "wb", buffering=0) as file:
        stream = CleanLog(file).stream()
        for _ in range(10):
            stream.feed(b"." * 30)
        assert path.stat().st_size >= 200
        stream.feed(b"\n-----BEGIN PRIVATE KEY-----\n")
        for _ in range(10):
            stream.feed(b"a line\n" * 10)
        assert path.stat().st_size >= 900


def test_a_disk_that_is_full_is_told_to_the_caller() -> None:
    class Full(io.BytesIO):
        def fileno(self) -> int:
            return os.open("/dev/full", os.O_WRONLY)

    with pytest.raises(OSError, match="No space"):
        CleanLog(Full()).stream().feed(b"a\n")


def test_what_was_taken_out_of_a_log_is_found_again_without_its_kind(path: Path) -> None:
    path.write_text(f"a\n{REMOVED} and {REMOVED}\n\n{REMOVED}")
    told = [(one.line, one.place, one.kind) for one in removed_before(path)]
    assert told == [(2, 0, UNKNOWN), (2, 1, UNKNOWN), (4, 0, UNKNOWN)]
