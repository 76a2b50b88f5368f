"""`cas rm` shows its plan, asks, and then removes exactly those runs."""

import pytest

from cas.cli.session import Session
from cas.objects.commit import RESUMED_FROM, Parent
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, noise, pack_files, set_ref


@pytest.fixture
def runs(repo: Repo) -> list[RunBuilder]:
    repo.who = Session().who
    found = []
    for number, name in enumerate(("exp/one", "exp/two", "other/three")):
        run = RunBuilder(repo, name)
        for step in range(2):
            run.checkpoint(step, {"w": noise(10 * number + step, 300_000)}, value=1.0)
        run.finish()
        found.append(run)
    return found


def left(repo: Repo) -> list[str]:
    return sorted(ref for ref in repo.refresh().refs if ref.startswith("runs/"))


def test_shows_what_goes_and_what_that_frees(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    result = cas("rm", "exp", "--dry-run")
    assert result.code == 0
    assert result.lines[0].split() == [
        *("exp/one", "finished", "2", "checkpoints,", "2", "kept", "600.0", "kB", "given"),
        runs[0].ids[-1].short,
    ]
    assert result.lines[-1] == "2 runs to remove; gc then frees 1.2 MB"
    assert len(left(repo)) == 3


def test_removes_and_brings_back(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    before = dict(repo.refresh().refs)
    result = cas("rm", "exp/one", "--yes")
    assert result.code == 0
    assert "cas undo" in result.lines[-1]
    assert left(repo) == ["runs/exp/two", "runs/other/three"]
    assert "exp/one" not in cas("log").out
    assert cas("undo", "--yes").code == 0
    assert dict(repo.refresh().refs) == before


def test_frees_the_space_at_once(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    before = sum(pack_files(repo).values())
    told = cas("rm", "exp", "--yes", "--gc", "--json").json
    freed = before - sum(pack_files(repo).values())
    assert told["gc"]["freed_bytes"] == freed > 1_200_000
    assert told["freed_bytes"] == pytest.approx(freed, rel=0.001)
    assert told["done"]
    assert [row["run"] for row in told["runs"]] == ["exp/one", "exp/two"]
    assert cas("fsck", "--full").code == 0


def test_without_a_terminal_and_without_yes_nothing_happens(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    result = cas("rm", "exp")
    assert result.code == 6
    assert "--yes" in result.err
    assert len(left(repo)) == 3


def test_a_run_that_is_needed_is_named(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    RunBuilder(repo, "later/fork", (Parent(RESUMED_FROM, runs[0].ids[1]),)).finish()
    result = cas("rm", "exp/one", "--yes")
    assert result.code == 6
    assert "later/fork has exp/one, step 1 as resumed-from" in result.err
    assert "--keep-record" in result.err
    assert "runs/exp/one" in left(repo)
    assert cas("rm", "exp/one", "later/fork", "--yes").code == 0


def test_the_payloads_alone(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    RunBuilder(repo, "later/fork", (Parent(RESUMED_FROM, runs[0].ids[1]),)).finish()
    result = cas("rm", "exp/one", "--keep-record", "--yes")
    assert result.code == 0
    assert "still in use: later/fork has exp/one, step 1 as resumed-from" in result.lines
    assert "runs/exp/one" in left(repo)
    assert not {f"holds/{id}" for id in runs[0].ids} & repo.refresh().refs.keys()
    assert cas("show", "exp/one").code == 0


def test_a_run_whose_payloads_are_gone_already(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    assert cas("rm", "exp/one", "--keep-record", "--yes").code == 0
    assert cas("rm", "exp/one", "--keep-record").code == 0  # nothing goes: nobody is asked


@pytest.mark.parametrize(("args", "code"), [((), 2), (("nope",), 3), (("exp/one", "nope"), 3)])
def test_a_wrong_call_is_told(
    cas: Cas, repo: Repo, runs: list[RunBuilder], args: tuple[str, ...], code: int
) -> None:
    set_ref(repo, "tags/v1", runs[0].ids[0])
    assert cas("rm", *args, "--yes").code == code
    assert len(left(repo)) == 3
