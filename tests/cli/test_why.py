"""`cas why` says what keeps something, however it is named."""

from pathlib import Path

import pytest

from cas.ids import CommitId, blob_id
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise, set_ref

DATA = noise(1, 5000)


@pytest.fixture
def id(repo: Repo) -> CommitId:
    return commit_files(repo, {"sub": {"a.bin": DATA}})


@pytest.mark.parametrize("word", ["main:sub/a.bin", blob_id(DATA).hex()[:12], "copy.bin"])
def test_an_object_is_named_by_path_hash_or_content(
    cas: Cas, place: Path, repo: Repo, id: CommitId, word: str
) -> None:
    (place / "copy.bin").write_bytes(DATA)
    told = cas("why", word, "--json").json
    assert told["kept"]
    assert told["id"] == str(blob_id(DATA))
    assert told["ref"] == "heads/main"
    assert [step["to"] for step in told["steps"]] == ["record", "sub", "a.bin", ""]
    assert told["steps"][0]["id"] == str(id)


def test_it_reads_as_a_way_from_the_top(cas: Cas, repo: Repo, id: CommitId) -> None:
    lines = cas("why", "main:sub/a.bin").lines
    assert lines[0].endswith("is kept by heads/main")
    assert [line.split()[0] for line in lines[1:]] == ["commit", "tree", "tree", "blob"]
    set_ref(repo, "tags/v1", id)
    assert "1 other name would keep it too: tags/v1" in cas("why", "main:sub/a.bin").out


def test_a_revision_is_its_commit(cas: Cas, repo: Repo, id: CommitId) -> None:
    assert cas("why", "main", "--json").json["id"] == str(id)


def test_what_nothing_keeps_says_so(cas: Cas, repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    first = run.checkpoint(1, {"w": DATA})
    run.checkpoint(2, {"w": noise(2, 5000)})
    set_ref(repo, f"{HOLDS}{first}", None)
    result = cas("why", str(blob_id(DATA)))
    assert result.code == 0
    assert "nothing keeps it" in result.out
    assert not cas("why", str(blob_id(DATA)), "--json").json["kept"]


@pytest.mark.parametrize(("word", "code"), [("nothing-like-this", 3), ("0" * 64, 3), ("", 2)])
def test_what_is_not_there_is_one_line(cas: Cas, id: CommitId, word: str, code: int) -> None:
    assert cas("why", word).code == code
