"""`cas du` says what a repository takes, and of what."""

import re

from cas.cli.session import Session
from cas.ids import blob_id
from cas.objects.commit import Commit
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise, pack_files, set_ref

SIZE = re.compile(r"-?[0-9.]+ [kM]?B|-")


def filled(repo: Repo) -> RunBuilder:
    commit_files(repo, {"a": b"same words " * 1000}, payload={"b": b"same words " * 1000})
    run = RunBuilder(repo, "e/run")
    for step in range(2):
        run.checkpoint(step, {"w": noise(step, 50_000), "frozen": noise(9, 30_000)}, value=1.0)
    run.finish()
    return run


def test_a_line_for_each_part_and_their_sum(cas: Cas, repo: Repo) -> None:
    filled(repo)
    head, *lines = cas("du").lines
    assert head.split() == ["given", "stored", "ratio"]
    assert [line.split()[0] for line in lines] == [
        *("weights", "metrics", "files", "history", "upkeep", "total")
    ]
    assert re.fullmatch(r"weights +160\.0 kB +130\.\d kB +0\.81\d", lines[0])


def test_savings_in_columns(cas: Cas, repo: Repo) -> None:
    filled(repo)
    head, *lines = cas("du", "--savings").lines
    columns = ["given", "shared", "planes", "deltas", "zstd", "added", "stored"]
    assert head.split() == [*columns, "ratio"]
    rows = {line.split()[0]: SIZE.findall(line) for line in lines}
    assert rows["weights"][:5] == ["160.0 kB", "-30.0 kB", "-", "-", "-"]
    assert rows["files"][1] == "-11.0 kB"
    assert rows["files"][4].startswith("-1")
    assert {len(row) for row in rows.values()} == {7}


def test_a_narrow_terminal_is_spared_what_says_nothing(cas: Cas, repo: Repo) -> None:
    filled(repo)
    whole = cas("du", "--savings").lines
    session = Session()
    session.width = len(whole[-1])
    assert cas("du", "--savings", session=session).lines == whole
    session = Session()
    session.width = len(whole[-1]) - 1
    head, *_, last = cas("du", "--savings", session=session).lines
    assert head.split() == ["given", "shared", "zstd", "added", "stored"]
    assert len(last) <= session.width
    assert cas("du", session=session).lines[0].split()[-1] == "ratio"


def test_json_adds_up(cas: Cas, repo: Repo) -> None:
    filled(repo)
    told = cas("du", "--json").json
    assert (told["commits"], told["missing"]) == (4, 0)
    for name, total in told["total"].items():
        if name != "part":
            assert total == sum(part[name] for part in told["parts"])
    on_disk = sum(file.stat().st_size for file in repo.path.rglob("*") if file.is_file())
    assert told["total"]["stored_bytes"] == on_disk


def test_a_run_is_its_checkpoints_and_what_only_they_need(cas: Cas, repo: Repo) -> None:
    run = filled(repo)
    head, *lines = cas("du", "e/run").lines
    assert head.split() == ["commit", "step", "given", "stored", "only", "here"]
    assert [line.split()[0] for line in lines] == [*(id.short for id in run.ids), "together"]
    told = cas("du", "e/run", "--json").json
    first, second, end = told["commits"]
    assert (first["commit"], first["step"], second["kind"]) == (str(run.ids[0]), 0, "checkpoint")
    assert 50_000 < first["own_bytes"] < 51_000
    assert end["own_bytes"] == 0
    assert told["own_bytes"] > first["own_bytes"] + second["own_bytes"] + 30_000


def test_one_commit_has_one_line(cas: Cas, repo: Repo) -> None:
    run = filled(repo)
    set_ref(repo, f"holds/{run.ids[0]}", None)
    _, *lines = cas("du", str(run.ids[0])).lines
    assert len(lines) == 1
    assert "checkpoint, pruned" in lines[0]
    assert cas("du", "e/run~1", "--savings").lines[0].split()[0] == "given"


def test_an_empty_repository(cas: Cas, repo: Repo) -> None:
    assert [line.split()[0] for line in cas("du").lines[1:]] == ["upkeep", "total"]


def test_what_is_missing_is_told(cas: Cas, repo: Repo) -> None:
    def make(tx: Transaction) -> None:
        entry = Entry(b"gone", EntryKind.FILE, blob_id(b"gone"), 4, 0o644)
        commit = Commit(kind="commit", tree=build([entry], tx.writer.tree).id)
        tx.set_ref("tags/x", tx.record(commit))

    transact(repo, "commit", make)
    result = cas("du")
    assert result.code == 0
    assert "1 object cannot be found and is not counted: `cas fsck` says more" in result.err


def test_a_pack_that_is_gone_is_damage(cas: Cas, repo: Repo) -> None:
    filled(repo)
    for key in pack_files(repo):
        (repo.path / key).unlink()
    for args in (["du"], ["du", "e/run"], ["du", "--json"]):
        result = cas(*args)
        assert result.code == 7
        assert "`cas fsck" in result.err


def test_a_revision_that_is_none(cas: Cas, repo: Repo) -> None:
    assert cas("du", "nope").code == 3


def test_by_run_says_what_would_be_freed_with_each(cas: Cas, repo: Repo) -> None:
    for name in ("exp/one", "exp/two"):
        run = RunBuilder(repo, name)
        run.checkpoint(1, {"w": noise(len(name) + ord(name[-1]), 40_000)}, value=1.0)
    lines = cas("du", "--by", "run").lines
    assert lines[0].split()[0] == "run"
    assert {line.split()[0] for line in lines[1:3]} == {"exp/one", "exp/two"}
    assert lines[-1].split()[0] == "total"
    told = cas("du", "--by", "experiment", "--json").json
    assert [one["name"] for one in told["owners"]] == ["exp"]
    assert told["owners"][0]["own_bytes"] > 80_000
    assert cas("du", "--by", "artifact").code == 0


def test_by_goes_with_nothing_else(cas: Cas, repo: Repo) -> None:
    assert cas("du", "--by", "run", "--savings").code == 2
    assert cas("du", "--by", "moon").code == 2
