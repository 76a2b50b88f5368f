"""`cas status` counts."""

from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise, pack_files


def test_counts_and_place(cas: Cas, repo: Repo) -> None:
    RunBuilder(repo, "e/run").checkpoint(0, {"w": noise(1, 1000)})
    commit_files(repo, {"d": b""}, ref="datasets/d", kind="input")
    told = cas("status", "--json").json
    assert told["path"] == str(repo.path)
    assert (told["runs"], told["datasets"], told["tags"], told["payloads_kept"]) == (1, 1, 0, 1)
    assert told["packs_bytes"] == sum(pack_files(repo).values())
    assert told["open_runs"] == {}
    out = cas("status").out
    assert str(repo.path) in out
    assert "nothing committed yet" in out
