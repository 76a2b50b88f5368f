"""`cas repack` says what it saves, saves it, and needs to be called once."""

import pytest

from cas.repo.repacking import repack
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import pack_files
from tests.support.drift import drift_run


@pytest.fixture
def size(repo: Repo) -> int:
    """The size of a repository with a run whose weights drift."""
    drift_run(repo, steps=5, size=300_000)
    return sum(pack_files(repo).values())


def test_saves_what_it_says(cas: Cas, repo: Repo, size: int) -> None:
    told = cas("repack", "--json").json
    assert told["old_bytes"] == size
    assert told["new_bytes"] == sum(pack_files(repo).values()) < size / 2
    assert told["saved_bytes"] == size - told["new_bytes"]
    assert (told["deltas"], told["skipped_packs"]) == (4, 0)
    assert cas("fsck", "--full").code == 0


def test_a_dry_run_says_about_the_same_and_does_nothing(cas: Cas, repo: Repo, size: int) -> None:
    told = cas("repack", "--dry-run", "--json").json
    assert told["dry_run"]
    assert sum(pack_files(repo).values()) == size
    saved = cas("repack", "--json").json["saved_bytes"]
    assert told["saved_bytes"] == pytest.approx(saved, rel=0.1)


def test_says_when_there_is_nothing_to_do(cas: Cas, repo: Repo, size: int) -> None:
    assert cas("repack", "--dry-run").lines[0].startswith("would save about ")
    assert cas("repack").lines[0].startswith("saved ")
    assert cas("repack").lines[0].startswith("nothing was saved")
    assert cas("repack", "--dry-run").lines[0].startswith("nothing to do")


def test_smallest_is_smaller(cas: Cas, repo: Repo) -> None:
    drift_run(repo, steps=14, by=20)
    first = cas("repack", "--json").json["new_bytes"]
    assert cas("repack", "--smallest", "--json").json["new_bytes"] < first


def test_keeps_to_the_room_that_is_given(cas: Cas, repo: Repo, size: int) -> None:
    result = cas("repack", "--max-extra", "1kB".upper())
    assert "left 4 packs as before" in result.out
    assert sum(pack_files(repo).values()) == size
    told = cas("repack", "--max-extra", "1MiB", "--json").json
    assert told["skipped_packs"] == 0
    assert told["most_bytes"] <= size + 1024**2


@pytest.mark.parametrize("text", ["1MiB", "1MB", "1mib", "1mb", "1000kB", "1000k", "1000000"])
def test_a_size_is_taken_as_people_write_it(cas: Cas, repo: Repo, size: int, text: str) -> None:
    assert cas("repack", "--max-extra", text, "--json").json["skipped_packs"] == 0


def test_what_others_stored_meanwhile_is_no_saving(
    cas: Cas, repo: Repo, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = repack.Repacked(steps=1, deltas=24, old_bytes=1_000_000, new_bytes=3_000_000)
    monkeypatch.setattr(repack, "execute", lambda *_, **__: done)
    (line,) = cas("repack").lines
    assert line.startswith("stored 24 pieces by what changed; others stored more meanwhile")
    assert line.endswith("3.0 MB in all")


@pytest.mark.parametrize("text", ["much", "-1", "1,5GB", "2XB", "GB"])
def test_refuses_what_is_no_size(cas: Cas, repo: Repo, text: str) -> None:
    result = cas("repack", "--max-extra", text)
    assert result.code == 2
    assert "500MB" in result.err
