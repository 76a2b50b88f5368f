"""What a run leaves behind beside numbers."""

import os
from pathlib import Path

import pytest

import cas
from cas.errors import TrackingError
from tests.support.runs import (
    names,
    only_run,
    opened,
    text,
)


def test_an_artifact_is_a_file_or_a_folder_under_its_name(here: Path) -> None:
    (here / "small.txt").write_bytes(b"s")
    (here / "large.bin").write_bytes(b"l" * 70_000)
    folder = here / "plots"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"p")
    (folder / "b.png").symlink_to("a.png")
    (here / "link.txt").symlink_to("small.txt")
    (here / os.fsdecode(b"caf\xe9")).write_bytes(b"c")
    with cas.track("a") as run:
        run.log_artifact("small.txt")
        run.log_artifact(here / "large.bin", name="weights/large.bin")
        run.log_artifact("plots")
        run.log_artifact("link.txt")
        run.log_artifact(os.fsdecode(b"caf\xe9"))
        (here / "small.txt").write_bytes(b"second")
        run.log_artifact("small.txt", name="notes/")
        run.log_artifact("small.txt")
    repo = opened(here)
    _, commit = only_run(repo)
    assert text(repo, commit, "artifacts/small.txt") == "second"
    assert text(repo, commit, "artifacts/notes") == "second"
    assert text(repo, commit, "artifacts/link.txt") == "s"
    assert text(repo, commit, "artifacts/plots/a.png") == "p"
    assert commit.payload is not None
    raw = repo.lookup(commit.tree, b"artifacts/caf\xe9")
    assert raw is not None
    assert raw.size == 1
    assert repo.lookup(commit.tree, b"artifacts/weights/large.bin") is None
    large = repo.lookup(commit.payload, b"artifacts/weights/large.bin")
    assert large is not None
    assert large.size == 70_000
    assert names(repo, commit.payload) == ["artifacts"]


def test_small_artifacts_beyond_a_megabyte_are_payload(here: Path) -> None:
    with cas.track("a") as run:
        for number in range(18):
            (here / "x").write_bytes(bytes([number]) * 60_000)
            run.log_artifact("x", name=f"x{number:02}")
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.payload is not None
    small = repo.lookup(commit.tree, b"artifacts")
    large = repo.lookup(commit.payload, b"artifacts")
    assert small is not None
    assert large is not None
    assert len(names(repo, small.id)) == 17
    assert names(repo, large.id) == ["x17"]


@pytest.mark.parametrize("name", ["../x", "a/../b", ".git/x", "a\0b"])
def test_an_artifact_cannot_have_any_name(here: Path, name: str) -> None:
    (here / "x").write_text("")
    run = cas.track("a")
    run.log_artifact("x", name=name)
    run.log_artifact("x")
    with pytest.raises(TrackingError, match=r"1 call of run .* log_artifact"):
        run.finish()
    repo = opened(here)
    assert text(repo, only_run(repo)[1], "artifacts/x") == ""


def test_an_artifact_cannot_be_a_file_and_a_folder(here: Path) -> None:
    (here / "x").write_text("1")
    run = cas.track("a")
    run.log_artifact("x", name="out")
    run.log_artifact("x", name="out/y")
    with pytest.raises(TrackingError, match="file and as a folder"):
        run.finish()
    repo = opened(here)
    assert text(repo, only_run(repo)[1], "artifacts/out") == "1"
