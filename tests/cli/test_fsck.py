"""`cas fsck` ends with 7 when something kept is not whole, and says what."""

from cas.ids import blob_id
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, noise


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
        "findings": [],
        "checked": {
            "roots": 1,
            "packs": 0,
            "size_bytes": 0,
            "objects": 0,
            "commits": 0,
            "refs": 0,
            "errors": 0,
        },
    }
