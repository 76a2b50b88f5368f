"""What a run leaves behind beside numbers."""

import os
import sys
from pathlib import Path

import pytest

import cas
from cas.errors import TrackingError
from cas.plain import human_share
from cas.tracking.record import run_volume
from tests.support.builders import noise
from tests.support.runs import cas as command
from tests.support.runs import names, only_run, opened, script, text

NAMES = ("first", "again")


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


def test_what_artifacts_cost_counts_for_the_run_that_stored_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "plot.bin").write_bytes(noise(1, 300_000))
    (here / "data.bin").write_bytes(noise(2, 500_000))
    for name in NAMES:
        with cas.track("a", name=name) as run:
            run.track_dataset("data.bin")  # an input is a commit of its own
            run.log_artifact("plot.bin")
            run.log({"loss": 1.0})
            run.log_artifact("plot.bin", name="copy.bin")
    repo = opened(here)
    first, again = (run_volume(repo, repo.root.refs[f"runs/a/{name}"]) for name in NAMES)
    assert 600_000 < first.given_bytes == again.given_bytes < 620_000
    assert 300_000 < first.stored_bytes < 320_000
    assert again.stored_bytes < 20_000
    said = [line for line in capsys.readouterr().err.splitlines() if " finished a/" in line]
    assert [line.rpartition(" stored ")[2] for line in said] == [
        human_share(one.stored_bytes, one.given_bytes) for one in (first, again)
    ]


def test_a_program_in_a_run_adds_to_what_the_run_cost(here: Path) -> None:
    (here / "plot.bin").write_bytes(noise(1, 300_000))
    path = script(here, "with cas.track() as run:\n    run.log_artifact('plot.bin')\n")
    done = command(here, "run", "--", sys.executable, str(path))
    repo = opened(here)
    volume = run_volume(repo, only_run(repo)[0])
    assert 300_000 < volume.stored_bytes < 330_000
    assert done.stderr.splitlines()[-1].endswith(
        f"exit code 0, stored {human_share(volume.stored_bytes, volume.given_bytes)}"
    )
