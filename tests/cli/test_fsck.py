"""`cas fsck` ends with 7 when something kept is not whole, and says what."""

import shutil
from pathlib import Path

import pytest

from cas.cli.session import Session
from cas.ids import blob_id
from cas.repo.layout import root_key
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, lose_ref, noise


def run_of(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    run.checkpoint(1, {"w": noise(1, 300_000)})
    run.finish()


def test_a_whole_repository(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    for args in ((), ("--full",)):
        result = cas("fsck", *args)
        assert result.code == 0
        assert result.lines[-1].startswith("checked ")
        assert result.lines[-1].endswith("all is well")


def damage(repo: Repo) -> None:
    place = repo.store.locate(blob_id(noise(1, 300_000)))
    assert place is not None
    path = repo.path / place.pack.key
    raw = bytearray(path.read_bytes())
    raw[place.row.offset + 300] ^= 1
    path.write_bytes(raw)


def test_damage_is_told_by_name(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    damage(repo)
    assert cas("fsck").code == 0
    result = cas("fsck", "--full")
    assert result.code == 7
    assert "runs/exp/one" in result.lines[0]
    assert "state/w" in result.lines[0]
    assert result.lines[-1].endswith("1 error")


def test_findings_as_json(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    damage(repo)
    result = cas("fsck", "--full", "--json")
    assert result.code == 7
    assert not result.json["ok"]
    assert result.json["findings"][0]["what"] == "damaged"
    assert result.json["checked"]["errors"] == 1
    assert result.json["checked"]["commits"] == 2


def test_an_empty_repository(cas: Cas, repo: Repo) -> None:
    result = cas("fsck", "--json")
    assert result.json == {
        "ok": True,
        "full": False,
        "data_percent": None,
        "findings": [],
        "damaged_commits": [],
        "checked": {
            "roots": 1,
            "packs": 0,
            "size_bytes": 0,
            "read_bytes": 0,
            "objects": 0,
            "commits": 0,
            "whole_commits": 0,
            "refs": 0,
            "errors": 0,
        },
    }


def test_data_reads_a_part_and_goes_on(cas: Cas, repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    for step in range(4):
        run.checkpoint(step, {"w": noise(step, 50_000)})
    reads = []
    for _ in range(2):
        result = cas("fsck", "--data", "50%", "--json")
        assert result.json["data_percent"] == 50.0
        reads.append(result.json["checked"]["read_bytes"])
    assert sum(reads) >= 200_000
    assert max(reads) < 200_000
    assert "read): all is well" in cas("fsck", "--data").lines[-1]


def test_a_share_that_is_none(cas: Cas, repo: Repo) -> None:
    for text in ("0", "101", "x", "1/0"):
        result = cas("fsck", "--data", text)
        assert result.code == 2
        assert "above 0 and up to 100" in result.err
    assert cas("fsck", "--data", "10", "--full").code == 2
    assert cas("fsck", "--from", ".").code == 2


def test_commits_that_are_not_whole_are_counted_and_named(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    damage(repo)
    lines = cas("fsck", "--full").lines
    assert lines[-2] == "1 of 2 commits are whole"
    assert "exp/one at step 1 (runs/exp/one): state/w" in lines[1]
    (lost,) = cas("fsck", "--full", "--json").json["damaged_commits"]
    assert lost["paths"] == ["state/w"]


def test_a_repair_ends_with_7_while_something_is_lost(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    damage(repo)
    result = cas("fsck", "--repair", "--json")
    assert result.code == 7
    assert result.json["repaired"]["ruined_bytes"] > 300_000
    assert result.json["checked"]["whole_commits"] == 1
    assert cas("gc").code == 6
    assert cas("fsck", "--accept-loss").code == 6
    result = cas("fsck", "--accept-loss", "--yes", "--json")
    assert (result.code, result.json["ok"]) == (0, True)
    assert result.json["repaired"]["given_up"] == 1
    assert cas("fsck", "--full").code == 0


def test_a_ref_that_no_operation_dropped(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    commit_files(repo, {"a": b"1"}, ref="tags/a")
    lose_ref(repo, "tags/a")
    result = cas("fsck")
    assert result.code == 7
    assert "vanished-ref: tags/a: root " in result.out
    result = cas("gc")
    assert result.code == 6
    assert "no operation on record says why tags/a" in result.err
    result = cas("fsck", "--accept-loss", "--yes", "--json")
    assert (result.code, result.json["repaired"]["given_up"]) == (0, 1)
    assert cas("gc").code == 0
    assert "tags/a" in cas("reflog", "tags/a").out


def test_a_repair_from_a_copy_ends_with_0(cas: Cas, repo: Repo, place: Path) -> None:
    run_of(repo)
    shutil.copytree(repo.path, place / "copy" / ".cas")
    damage(repo)
    result = cas("fsck", "--repair", "--from", "copy")
    assert result.code == 0
    assert "what is whole moves to a new pack" in result.out
    assert result.lines[-1].endswith("all is well")
    assert cas("fsck", "--full").code == 0


def test_with_nothing_to_repair(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    result = cas("fsck", "--repair")
    assert (result.code, result.err) == (0, "")


def test_a_copy_taken_while_others_wrote(
    cas: Cas, repo: Repo, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_files(repo, {"a": noise(1, 3000)}, ref="tags/one")
    commit_files(repo, {"a": noise(2, 3000)}, ref="tags/two")
    shutil.copytree(repo.path, place / "copy" / ".cas")
    (place / "copy" / ".cas" / repo.refresh().packs[-1].key).unlink()
    monkeypatch.chdir(place / "copy")
    result = cas("log", "one")
    assert result.code == 0
    assert result.err.startswith("cas: warning: this copy was taken while others wrote")
    assert cas("fsck", session=Session()).code == 7
    assert cas("tag", "three", "one", session=Session()).code == 6
    result = cas("fsck", "--repair")
    assert "tags/two is not in this copy" in result.err
    assert result.code == 0
    assert cas("tag", "three", "one").code == 0


def test_a_newest_root_that_is_gone_is_made_good(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    before = dict(repo.refresh().refs)
    (repo.path / root_key(repo.root.seq)).unlink()
    assert cas("fsck").code == 7
    result = cas("gc")
    assert (result.code, "was the newest, and is gone" in result.err) == (6, True)
    result = cas("fsck", "--repair", "--json")
    assert (result.code, list(result.json["repaired"]["brought_back"])) == (7, ["runs/exp/one"])
    result = cas("fsck", "--repair", "--accept-loss", "--yes", "--json")
    assert (result.code, result.json["repaired"]["given_up"]) == (0, 1)
    assert cas("gc").code == cas("fsck", "--full").code == 0
    assert Repo.open(repo.path).refresh().refs == before


def test_a_newest_root_that_cannot_be_read_is_gone_on_from(cas: Cas, repo: Repo) -> None:
    run_of(repo)
    before = dict(repo.refresh().refs)
    (repo.path / root_key(repo.root.seq)).write_bytes(b"")
    result = cas("fsck")
    assert (result.code, "`cas fsck --repair` goes on" in result.out) == (7, True)
    assert cas("log").code == 7
    result = cas("fsck", "--repair")
    assert (result.code, "goes on at root" in result.out) == (7, True)
    result = cas("fsck", "--accept-loss", "--yes")
    assert (result.code, "given up by operation" in result.out) == (0, True)
    assert cas("gc").code == 0
    assert Repo.open(repo.path).refresh().refs == before
