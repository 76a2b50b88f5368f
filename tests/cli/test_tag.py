"""`cas tag` gives fixed names."""

import pytest

from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files


def test_a_tag_is_given_listed_and_deleted(cas: Cas, repo: Repo) -> None:
    first = commit_files(repo, {"a": b"1"})
    commit_files(repo, {"a": b"2"})
    assert cas("tag").out == ""
    assert cas("tag", "v1", "HEAD~1").out == f"v1 {first.short}\n"
    assert cas("tag", "--json").json == [{"name": "v1", "id": str(first)}]
    assert first.short in cas("tag").out
    assert cas("show", "v1", "--json").json["id"] == str(first)
    assert cas("tag", "-d", "v1").code == 0
    assert cas("show", "v1").code == 3


def test_a_taken_name_is_refused(cas: Cas, repo: Repo) -> None:
    first = commit_files(repo, {"a": b"1"})
    cas("tag", "v1")
    commit_files(repo, {"a": b"2"})
    assert cas("tag", "v1").code == 6
    assert cas("tag", "v1", "HEAD~1").code == 0
    assert repo.refresh().refs["tags/v1"] == first


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["v1", "nope"], 3),
        (["a..b", "HEAD"], 2),
        (["v1@x", "HEAD"], 2),
        (["-d", "nope"], 3),
        (["-d"], 2),
        (["-d", "v1", "HEAD"], 2),
    ],
)
def test_wrong_calls(cas: Cas, repo: Repo, args: list[str], code: int) -> None:
    commit_files(repo, {"a": b"1"})
    assert cas("tag", *args).code == code


def test_a_checkpoint_can_be_tagged(cas: Cas, repo: Repo) -> None:
    RunBuilder(repo, "e/run").checkpoint(4, {}, value=0.5)
    cas("tag", "best", "e@best")
    assert cas("tag").lines[0].split()[2:] == ["e/run", "step", "4"]


def test_what_cannot_be_a_tag(cas: Cas, repo: Repo) -> None:
    commit_files(repo, {"a": b"1"})
    for name in ("HEAD", "a b", "../x", ""):
        result = cas("tag", "--", name)
        assert result.code == 2, name
        assert "tags/" not in result.err
    assert not [ref for ref in repo.refresh().refs if ref.startswith("tags/")]
