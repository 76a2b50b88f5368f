"""`cas reflog` lists operations with the refs that they moved."""

import pytest

from cas.repo.reflog import history
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise, set_ref


def test_the_newest_first_with_what_moved(cas: Cas, repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"}, payload={"w": b"1"})
    transact(repo, "tag v1", lambda tx: tx.set_ref("tags/v1", id))
    result = cas("reflog")
    assert result.code == 0
    numbers = [line.split()[0] for line in result.lines if not line.startswith("   ")]
    assert numbers == ["3", "2", "1"]
    assert result.lines[0].endswith("ada@host  tag v1")
    assert result.lines[1].strip() == f"tags/v1  - → {id.short}"
    assert f"holds/{id.short}  - → {id.short}" in result.out
    assert next(history(repo)).id[:8] in result.lines[0]


def test_a_ref_by_any_of_its_names(cas: Cas, repo: Repo) -> None:
    first = commit_files(repo, {"a": b"1"})
    set_ref(repo, "tags/v1", first)
    commit_files(repo, {"a": b"2"}, payload={"w": b"2"})
    for word in ("HEAD", "main", "heads/main", "refs/heads/main"):
        found = cas("reflog", word, "--json").json
        assert [row["number"] for row in found] == [4, 2]
        assert {change["ref"] for row in found for change in row["refs"]} == {"heads/main"}
    assert [row["number"] for row in cas("reflog", "v1", "--json").json] == [3]


def test_json_tells_all(cas: Cas, repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"})
    transact(repo, "checkpoint a/x", lambda tx: tx.set_ref("runs/a/x", id), run="a/x")
    (row,) = cas("reflog", "-n", "1", "--json").json
    past = next(history(repo))
    assert row == {
        "number": 3,
        "id": past.id,
        "time": row["time"],
        "who": "ada@host",
        "run": "a/x",
        "what": "checkpoint a/x",
        "vouched": True,
        "refs": [{"ref": "runs/a/x", "old": None, "new": str(id)}],
    }
    assert row["time"].startswith("2030-")


def test_what_a_run_did_names_it(cas: Cas, repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"})
    transact(repo, "artifact x.txt", lambda tx: tx.set_ref("open/a/x", id), run="a/x")
    assert cas("reflog").lines[0].endswith("artifact x.txt (a/x)")


def test_only_the_first_of_very_many(cas: Cas, repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"})

    def many(tx: Transaction) -> None:
        for number in range(20):
            tx.set_ref(f"tags/{number:02}", id)

    transact(repo, "many", many)
    out = cas("reflog", "-n", "1").lines
    assert len(out) == 10
    assert out[-1].strip() == "and 12 refs more"
    assert len(cas("reflog", "-n", "1", "--json").json[0]["refs"]) == 20
    assert cas("reflog", "-n", "0").lines == []


def test_control_characters_do_not_reach_the_terminal(cas: Cas, repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"})
    transact(repo, "evil\x1b[2J\nsecond", lambda tx: tx.set_ref("tags/x", id))
    assert "\x1b" not in cas("reflog").out


def test_a_ref_that_never_was(cas: Cas, repo: Repo) -> None:
    result = cas("reflog", "nope")
    assert result.code == 3
    assert "nope" in result.err


def test_it_names_what_the_chain_does_not_vouch_for(cas: Cas, repo: Repo) -> None:
    from dataclasses import replace

    from cas.cli.session import Session
    from cas.repo import root as roots
    from cas.repo.layout import root_key

    set_ref(repo, "tags/a", commit_files(repo, {"a": b"1"}))
    root = roots.read(repo.backend, 2)
    repo.backend.delete(root_key(2))
    changed = replace(root, operation=replace(root.operation, who="eve@host"))
    roots.publish(repo.backend, changed, b"w" * 16)
    result = cas("reflog", session=Session())
    assert result.code == 0
    assert "eve@host  ? commit" in result.out
    assert "cas fsck" in result.err


def test_a_run_of_the_library_is_told_apart(cas: Cas, repo: Repo) -> None:
    RunBuilder(repo, "exp/one").checkpoint(1, {"w": noise(1, 100)})
    assert cas("reflog", "exp/one", "--json").json[0]["run"] is None


@pytest.mark.parametrize("args", [("-n", "-1"), ("a", "b")])
def test_a_wrong_call_is_told(cas: Cas, repo: Repo, args: tuple[str, ...]) -> None:
    assert cas("reflog", *args).code == 2
