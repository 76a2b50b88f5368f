"""`cas cat` writes bytes as they are."""

from pathlib import Path

import pytest

from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise


def test_bytes_come_back_bit_for_bit(cas: Cas, repo: Repo, place: Path) -> None:
    data = noise(1, 3_000_000)
    (place / "big").write_bytes(data)
    cas("commit", "big")
    assert cas("cat", "HEAD:big").raw == data


def test_the_payload_is_searched_first_then_the_record(cas: Cas, repo: Repo) -> None:
    commit_files(repo, {"x": b"record", "y": b"record"}, payload={"x": b"payload"})
    assert cas("cat", "HEAD:x").raw == b"payload"
    assert cas("cat", "HEAD:y").raw == b"record"


def test_a_series_is_lines_of_numbers(cas: Cas, repo: Repo) -> None:
    metrics = {"acc": 0.1 + 0.2, 'odd,"name': float("nan")}
    RunBuilder(repo, "e/run").checkpoint(7, {}, metrics=metrics)
    assert cas("cat", "e/run:metrics").lines == [
        "metric,step,value",
        "acc,7,0.30000000000000004",
        '"odd,""name",7,nan',
    ]


def test_a_state_is_its_tensors(cas: Cas, repo: Repo) -> None:
    RunBuilder(repo, "e/run").checkpoint(0, {"w": noise(1, 100)})
    (line,) = cas("cat", "e/run:state").lines
    assert line.endswith("uint8  [100]  w")


def test_a_link_is_its_target(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "l").symlink_to("nowhere/at all")
    cas("commit", "l")
    assert cas("cat", "HEAD:l").raw == b"nowhere/at all"


@pytest.mark.parametrize(
    ("rev", "code"), [("HEAD", 2), ("HEAD:", 2), ("HEAD:d", 2), ("HEAD:nope", 3), ("nope:x", 3)]
)
def test_what_cannot_be_written(cas: Cas, repo: Repo, rev: str, code: int) -> None:
    commit_files(repo, {"d": {"x": b"1"}})
    result = cas("cat", rev)
    assert (result.code, result.raw) == (code, b"")
