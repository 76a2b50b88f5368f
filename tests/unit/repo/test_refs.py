"""The refs of a root behave as a dict, and a commit copies and reads only what moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.ids import CommitId, ObjectId
from cas.repo.refs import NOTHING, Refs, RefTable
from cas.repo.repo import Repo
from cas.repo.root import RefChange
from cas.repo.transaction import Transaction, transact
from tests.support.builders import commit_files, reopened, repository

names = st.sampled_from([f"tags/{letter}" for letter in "abcdefgh"])
ids = st.sampled_from([CommitId(ObjectId(bytes([number]) * 32)) for number in range(4)])
plain = st.dictionaries(names, ids)
moves = st.lists(st.tuples(names, st.none() | ids), max_size=12)


def moved(refs: dict[str, CommitId], changes: list[tuple[str, CommitId | None]]) -> None:
    for name, new in changes:
        refs.pop(name, None)
        if new is not None:
            refs[name] = new


@given(base=plain, start=plain, first=moves, second=moves, other=plain)
def test_refs_are_a_dict_whatever_moves(
    base: dict[str, CommitId],
    start: dict[str, CommitId],
    first: list[tuple[str, CommitId | None]],
    second: list[tuple[str, CommitId | None]],
    other: dict[str, CommitId],
) -> None:
    model = dict(start)
    refs = Refs.against(RefTable.of(base), start)
    for changes in (first, second):
        before = dict(model)
        after = refs.after(changes)
        assert refs == before  # what it was made from stays as it is
        moved(model, changes)
        refs = after
        assert dict(refs.items()) == dict(refs) == model
        assert sorted(refs.values()) == sorted(model.values())
        assert len(refs) == len(model)
        assert all((name in refs) == (name in model) for name in [*base, *start, "tags/none"])
        assert all(refs.get(name) == model.get(name) for name in [*base, *start, "tags/none"])
        # Nothing counts as moved that is as the table has it: a root repeats what moved.
        assert all(refs.table.get(name) != id for name, id in refs.moved.items())
    assert Refs.against(RefTable.of(other), refs) == model
    assert Refs.against(refs.table, refs) is refs


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a"], b""),
        (["a"], b"x" * 33),
        ([], b"x" * 32),
        (["b", "a"], b"x" * 64),
        (["a", "a"], b"x" * 64),
        (["a", 7], b"x" * 64),
        ([b"a"], b"x" * 32),
    ],
)
def test_what_is_no_table_is_refused(names: list[str], ids: bytes) -> None:
    with pytest.raises(ValueError, match="refs"):
        RefTable(names, ids)


def test_a_table_is_searched_alike_before_and_after_it_was_listed() -> None:
    model = {f"r/{number}": CommitId(ObjectId(bytes([number]) * 32)) for number in range(50)}
    table = RefTable.of(model)
    asked = [*model, "", "r", "r/", "r/05", "z"]
    before = [table.get(name) for name in asked]
    assert table.all() == model
    assert [table.get(name) for name in asked] == before == [model.get(name) for name in asked]
    assert len(table) == 50
    assert len(NOTHING) == 0


@pytest.fixture
def many(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with thousands of refs, most of them in a snapshot."""
    repo = repository(tmp_path_factory.mktemp("many"))
    id = commit_files(repo, {"a": b"x"})

    def name(transaction: Transaction) -> None:
        for number in range(3000):
            transaction.set_ref(f"tags/{number:05}", id)

    transact(repo, "name", name)
    assert repo.root.refs_base is not None
    return repo


def test_a_commit_lists_no_refs(many: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("every ref was listed")

    monkeypatch.setattr(RefTable, "all", refuse)
    monkeypatch.setattr(RefTable, "of", refuse)
    for repo in (many, reopened(many)):  # warm, and as a new process has it
        id = commit_files(repo, {"a": b"y"}, ref="tags/new")
        assert repo.root.refs["tags/new"] == id
        assert len(repo.root.refs) == 3002
        transact(repo, "drop", lambda tx: tx.set_ref("tags/new", None))
    with pytest.raises(AssertionError, match="every ref"):
        dict(many.root.refs.items())


def test_all_roots_share_the_table(many: Repo) -> None:
    base = many.root.refs_base
    assert base is not None
    commit_files(many, {"a": b"y"}, ref="tags/new")
    assert isinstance(many.root.refs, Refs)
    assert many.root.refs.table is base.value
    assert set(many.root.refs.moved) == {"tags/new"}
    after = many.root.follow(many.root.operation, [RefChange("tags/00001", None, None)])
    assert isinstance(after.refs, Refs)
    assert after.refs.table is base.value
    assert "tags/00001" not in after.refs
    assert len(after.refs) == len(many.root.refs) - 1
