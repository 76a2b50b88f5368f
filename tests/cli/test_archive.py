"""`cas archive` hides runs from `cas log`, and shows them again."""

import pytest

from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, noise


@pytest.fixture
def runs(repo: Repo) -> Repo:
    for name in ("exp/one", "exp/two", "other/three"):
        run = RunBuilder(repo, name)
        run.checkpoint(1, {"w": noise(1, 5000)}, value=0.5)
        run.finish()
    return repo


def names(cas: Cas, *args: str) -> list[str]:
    return sorted(row["run"] for row in cas("log", *args, "--json").json)


def test_hides_and_shows_again(cas: Cas, runs: Repo) -> None:
    result = cas("archive", "exp/one")
    assert result.code == 0
    assert result.lines == ["archived: 1 run"]
    assert names(cas) == ["exp/two", "other/three"]
    assert names(cas, "exp") == ["exp/two"]
    assert names(cas, "--all") == ["exp/one", "exp/two", "other/three"]
    assert cas("log", "--all").lines[0].split()[:3] == ["exp/one", "finished", "(archived)"]
    assert "exp/one" not in cas("log", "--graph").out
    assert "exp/one" not in cas("log", "--graph", "exp").out
    assert "exp/one" in cas("log", "--graph", "--all").out
    assert "exp/one" in cas("log", "--graph", "--all", "exp").out
    assert cas("log", "exp/one").code == 0
    assert "exp/one" not in cas("log", "--checkpoints").out
    assert cas("archive").lines == ["exp/one"]
    assert cas("archive", "--json").json == {"archived": ["exp/one"]}
    assert cas("archive", "--undo", "exp/one").lines == ["shown again: 1 run"]
    assert len(names(cas)) == 3
    assert cas("archive").lines == []


def test_says_so_when_all_are_archived(cas: Cas, runs: Repo) -> None:
    assert cas("archive", "exp", "other").code == 0
    result = cas("log")
    assert result.code == 0
    assert result.lines == []
    assert "cas log --all" in result.err


@pytest.mark.parametrize(
    ("args", "code"), [(("nope",), 3), (("--undo",), 2), (("--undo", "exp/one"), 3)]
)
def test_a_wrong_call_is_told(cas: Cas, runs: Repo, args: tuple[str, ...], code: int) -> None:
    assert cas("archive", *args).code == code
