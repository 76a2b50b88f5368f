"""`cas gc` says what it freed, and frees exactly that."""

import pytest

from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise, pack_files, set_ref


@pytest.fixture
def size(repo: Repo) -> int:
    """The size of a repository in which a checkpoint was let go of."""
    run = RunBuilder(repo, "exp/one")
    for step in range(3):
        run.checkpoint(step, {"w": noise(step, 300_000)}, value=1.0)
    run.finish()
    set_ref(repo, f"{HOLDS}{run.ids[0]}", None)
    return sum(pack_files(repo).values())


def test_frees_what_it_says(cas: Cas, repo: Repo, size: int) -> None:
    told = cas("gc", "--json").json
    assert told["freed_bytes"] == size - sum(pack_files(repo).values()) > 300_000
    assert told["kept_bytes"] == sum(pack_files(repo).values())
    assert told["freed_objects"] > 0
    assert not told["dry_run"]
    assert cas("gc", "--json").json["freed_bytes"] == 0
    assert cas("fsck", "--full").code == 0


def test_a_dry_run_says_the_same_and_does_nothing(cas: Cas, repo: Repo, size: int) -> None:
    told = cas("gc", "--dry-run", "--json").json
    assert told["dry_run"]
    assert sum(pack_files(repo).values()) == size
    assert cas("gc", "--json").json | {"dry_run": True} == told


def test_sizes_are_for_people(cas: Cas, repo: Repo, size: int) -> None:
    (line,) = cas("gc", "--dry-run").lines
    assert line.startswith("would free ")
    (line,) = cas("gc").lines
    assert line.startswith("freed ")
    assert "kB" in line


def test_damage_stops_it(cas: Cas, repo: Repo, size: int) -> None:
    largest = max(pack_files(repo).items(), key=lambda item: item[1])[0]
    (repo.path / largest).unlink()
    result = cas("gc")
    assert result.code == 6
    assert "cas fsck" in result.err


def test_auto_does_nothing_until_it_is_due(cas: Cas, repo: Repo, size: int) -> None:
    assert not cas("gc", "--auto", "--json").json["due"]
    assert sum(pack_files(repo).values()) == size
    for number in range(64):
        set_ref(repo, f"tags/{number}", repo.root.refs["runs/exp/one"])
        commit_files(repo, {"n": b"%d" % number}, ref=f"heads/{number}")
    told = cas("gc", "--auto", "--json").json
    assert told["due"]
    assert told["done"]
    assert told["freed_bytes"] > 300_000
    assert cas("gc", "--auto", "--dry-run").code == 2
