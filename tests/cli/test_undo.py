"""`cas undo` shows what goes back, asks, and then does exactly that."""

import pytest

from cas.cli.session import Session
from cas.ids import CommitId
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from tests.cli.conftest import Cas
from tests.support.builders import commit_files, noise, set_ref


@pytest.fixture
def two(cas: Cas, repo: Repo) -> tuple[CommitId, CommitId]:
    """Two commits on main of this very user, the second with a payload."""
    repo.who = Session().who
    first = commit_files(repo, {"a": b"1"})
    return first, commit_files(repo, {"a": b"2"}, payload={"w": noise(1, 9000)})


class Asked(Session):  # type: ignore[misc, unused-ignore]
    """A session whose user answers."""

    def __init__(self, answer: bool) -> None:
        super().__init__()
        self.answer = answer
        self.question = ""

    def confirm(self, question: str) -> bool:
        self.question = question
        return self.answer


def test_shows_and_does(cas: Cas, repo: Repo, two: tuple[CommitId, CommitId]) -> None:
    before = dict(repo.refresh().refs)
    result = cas("undo", "--dry-run")
    assert result.code == 0
    assert f"heads/main  {two[1].short} → {two[0].short}" in result.out
    assert f"holds/{two[1].short}  {two[1].short} → -" in result.out
    assert dict(repo.refresh().refs) == before
    result = cas("undo", "--yes")
    assert result.code == 0
    assert result.lines[-1] == "took back operation 3; `cas undo` now does it again"
    assert dict(repo.refresh().refs) == {"heads/main": two[0]}
    assert cas("undo", "--yes").code == 0
    assert dict(repo.refresh().refs) == before
    assert cas("fsck", "--full").code == 0


@pytest.mark.parametrize("answer", [True, False])
def test_asks_first(cas: Cas, repo: Repo, two: tuple[CommitId, CommitId], answer: bool) -> None:
    session = Asked(answer)
    cas("undo", session=session)
    assert session.question == "Take back operation 3?"
    assert (repo.refresh().refs["heads/main"] == two[0]) == answer


def test_without_a_terminal_and_without_yes_nothing_happens(
    cas: Cas, repo: Repo, two: tuple[CommitId, CommitId]
) -> None:
    result = cas("undo")
    assert result.code == 6
    assert "--yes" in result.err
    assert repo.refresh().refs["heads/main"] == two[1]


def test_by_number_and_by_id(cas: Cas, repo: Repo, two: tuple[CommitId, CommitId]) -> None:
    transact(repo, "tag v1", lambda tx: tx.set_ref("tags/v1", two[0]))
    transact(repo, "tag v2", lambda tx: tx.set_ref("tags/v2", two[0]))
    number, id = (cas("reflog", "v1", "--json").json[0][key] for key in ("number", "id"))
    assert cas("undo", str(number), "--yes").code == 0
    assert "tags/v1" not in repo.refresh().refs
    assert "tags/v2" in repo.refresh().refs
    assert cas("undo", "--yes").code == 0
    assert cas("undo", id[:8], "--yes").code == 0
    assert "tags/v1" not in repo.refresh().refs


def test_what_has_moved_is_named(cas: Cas, repo: Repo, two: tuple[CommitId, CommitId]) -> None:
    third = commit_files(repo, {"a": b"3"})
    result = cas("undo", "3", "--yes")
    assert result.code == 6
    assert f"heads/main has moved since, to {third.short}" in result.err
    assert "--partly" in result.err
    told = cas("undo", "3", "--dry-run", "--json").json
    assert sorted(row["moves"] for row in told["refs"]) == [False, True]
    assert not told["done"]
    assert cas("undo", "3", "--partly", "--yes").code == 0
    assert repo.refresh().refs == {"heads/main": third}


def test_a_prune_until_gc(cas: Cas, repo: Repo, two: tuple[CommitId, CommitId]) -> None:
    set_ref(repo, f"holds/{two[1]}", None)
    assert cas("undo", "--yes").code == 0
    set_ref(repo, f"holds/{two[1]}", None)
    assert cas("gc").code == 0
    result = cas("undo", "--yes")
    assert result.code == 6
    assert "gc has taken" in result.err


@pytest.mark.parametrize(
    ("args", "code"), [(("99",), 3), (("zz",), 3), (("1",), 6), (("1", "2"), 2)]
)
def test_a_wrong_call_is_told(
    cas: Cas, repo: Repo, two: tuple[CommitId, CommitId], args: tuple[str, ...], code: int
) -> None:
    assert cas("undo", *args, "--yes").code == code


def test_another_users_operation_is_left_alone(cas: Cas, repo: Repo) -> None:
    repo.who = "somebody-else@host"
    set_ref(repo, "tags/v1", commit_files(repo, {"a": b"1"}))
    assert cas("undo", "--yes").code == 3
    result = cas("undo", "3", "--yes")
    assert result.code == 6
    assert "somebody-else" in result.err
    assert "tags/v1" in repo.refresh().refs
