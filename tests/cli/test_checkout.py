"""`cas checkout` writes files and never overwrites what differs."""

from pathlib import Path

import pytest

from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise, set_ref


@pytest.fixture
def head(repo: Repo) -> Repo:
    """A commit of two files."""
    commit_files(repo, {"params.json": b"{}"}, payload={"a.txt": b"a", "d": {"b.txt": b"b"}})
    return repo


def test_a_persons_commit_gives_its_paths(cas: Cas, head: Repo, place: Path) -> None:
    told = cas("checkout", "HEAD", "--to", "out", "--json").json
    assert sorted(path.name for path in (place / "out").rglob("*")) == ["a.txt", "b.txt", "d"]
    assert (place / "out" / "d" / "b.txt").read_bytes() == b"b"
    assert told["size_bytes"] == 2
    assert cas("checkout", "HEAD", "--to", "out", "--json").json["written"] == 0


def test_a_path_is_written_under_its_own_name(cas: Cas, head: Repo, place: Path) -> None:
    cas("checkout", "HEAD:d/b.txt")
    assert (place / "b.txt").read_bytes() == b"b"
    cas("checkout", "HEAD:params.json")
    assert (place / "params.json").read_bytes() == b"{}"


def test_what_differs_stays_without_force(cas: Cas, head: Repo, place: Path) -> None:
    (place / "d").mkdir()
    (place / "d" / "b.txt").write_bytes(b"mine")
    result = cas("checkout", "HEAD")
    assert result.code == 6
    assert "--force" in result.err
    assert not (place / "a.txt").exists()
    assert (place / "d" / "b.txt").read_bytes() == b"mine"
    assert cas("checkout", "HEAD", "--force").code == 0
    assert (place / "d" / "b.txt").read_bytes() == b"b"


def test_a_run_gives_all_that_it_holds(cas: Cas, repo: Repo, place: Path) -> None:
    commit_files(
        repo,
        {"params.json": b"{}", "artifacts": {"small": b"1"}},
        payload={"artifacts": {"large": b"2"}},
        kind="run",
        ref="runs/e/run",
    )
    (place / "out").mkdir()
    (place / "out" / "params.json").write_bytes(b"mine")
    assert cas("checkout", "e/run", "--to", "out").code == 6
    assert not (place / "out" / "artifacts").exists()
    (place / "out" / "params.json").unlink()
    cas("checkout", "e/run", "--to", "out")
    assert sorted(path.name for path in (place / "out" / "artifacts").iterdir()) == [
        "large",
        "small",
    ]
    cas("checkout", "e/run:artifacts", "--to", "only")
    assert sorted(path.name for path in (place / "only").iterdir()) == ["large", "small"]


def test_weights_are_no_files(cas: Cas, repo: Repo, place: Path) -> None:
    RunBuilder(repo, "e/run").checkpoint(0, {"w": noise(1, 100)})
    result = cas("checkout", "e/run", "--to", "out")
    assert result.code == 0
    assert "left out" in result.err
    assert cas("checkout", "e/run:state", "--to", "out").code == 2


def test_a_pruned_payload_is_said_to_be_pruned(cas: Cas, head: Repo) -> None:
    set_ref(head, f"holds/{head.root.refs['heads/main']}", None)
    cas("gc")
    result = cas("checkout", "HEAD")
    assert result.code == 3
    assert "pruned" in result.err


def test_the_repository_is_no_place_to_write_to(cas: Cas, head: Repo) -> None:
    assert cas("checkout", "HEAD", "--to", ".cas/out").code == 2
    assert cas("checkout", "HEAD", "--to", ".cas/format").code == 2
