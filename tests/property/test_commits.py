"""Commits come back equal, and damaged ones are an error of ours."""

from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CasError
from cas.ids import CommitId, ObjectId, TreeId
from cas.objects import canonical
from cas.objects.commit import (
    CHECKPOINT,
    COMMIT,
    DRAFT,
    INPUT,
    RUN,
    VERDICT,
    Commit,
    JournalPosition,
    Monitor,
    Parent,
    Volume,
)

digests = st.binary(min_size=32, max_size=32).map(ObjectId)
trees = digests.map(TreeId)
texts = st.text(max_size=8)
int64 = st.integers(-(2**63), 2**63 - 1)
naturals = st.integers(0, 2**63 - 1)
maps = st.dictionaries(texts, st.none() | st.integers(0, 9) | texts | st.binary(), max_size=3)
roles = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)
parents = st.lists(
    st.builds(Parent, roles, digests.map(CommitId), path=texts, attrs=maps), max_size=3
).map(tuple)

tracked = st.builds(
    Commit,
    kind=st.sampled_from([RUN, CHECKPOINT, DRAFT, COMMIT, VERDICT]),
    tree=trees,
    payload=st.none() | trees,
    parents=parents,
    experiment=st.none() | texts,
    run=st.none() | texts,
    seq=naturals,
    step=st.none() | int64,
    status=st.none() | texts,
    time=st.none() | int64,
    author=st.none() | texts,
    message=texts,
    monitor=st.none()
    | st.builds(Monitor, texts, st.sampled_from(["min", "max"]), st.floats(allow_nan=False)),
    volume=st.none() | st.builds(Volume, naturals, naturals),
    journal=st.none() | st.builds(JournalPosition, st.binary(min_size=16, max_size=16), naturals),
    extra=maps,
)
inputs = st.builds(
    Commit,
    kind=st.just(INPUT),
    tree=trees,
    payload=st.none() | trees,
    parents=parents,
    message=texts,
    extra=maps,
)
commits = tracked | inputs


@given(commits)
def test_a_commit_comes_back(commit: Commit) -> None:
    raw = commit.to_bytes()
    canonical.check(raw)
    back = Commit.from_bytes(raw)
    assert back == commit
    assert back.to_bytes() == raw
    assert back.id == commit.id


@given(commits, st.data())
def test_a_damaged_commit_is_an_error_of_ours(commit: Commit, data: st.DataObject) -> None:
    raw = bytearray(commit.to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        back = Commit.from_bytes(raw)
    except CasError:
        return
    assert Commit.from_bytes(back.to_bytes()).to_bytes() == back.to_bytes()
