"""`cas commit` stores paths and moves HEAD."""

import os
from pathlib import Path

import pytest

from cas.cli.session import Session
from cas.ids import CommitId, ObjectId, blob_id
from cas.objects.commit import Parent
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import read_tree


def commit_of(repo: Repo, text: str) -> tuple[CommitId, dict[str, object], dict[str, object]]:
    """Return a commit's id, payload and record."""
    repo.refresh()
    id = CommitId(ObjectId.parse(text.strip()))
    commit = repo.commit(id)
    assert commit.payload is not None
    return id, read_tree(repo, commit.payload), read_tree(repo, commit.tree)


def _size(record: dict[str, object]) -> int:
    return sum(len(data) for data in record.values() if isinstance(data, bytes))


def test_paths_keep_their_place(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "deep.txt").write_bytes(b"deep")
    (place / "top.txt").write_bytes(b"top")
    result = cas("commit", "a/b/deep.txt", "top.txt", "-m", "first")
    id, payload, record = commit_of(repo, result.out)
    assert payload == {"a": {"b": {"deep.txt": b"deep"}}, "top.txt": b"top"}
    assert record.keys() == {"params.json", "summary.json"}
    assert repo.root.refs["heads/main"] == id
    assert f"holds/{id}" in repo.root.refs
    assert result.err.startswith("cas: stored ")


def test_a_folder_is_committed_as_what_is_in_it(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "x").write_bytes(b"1")
    _, payload, _ = commit_of(repo, cas("commit", ".").out)
    assert payload == {"x": b"1"}


def test_what_stands_elsewhere_gets_its_own_name(
    cas: Cas, repo: Repo, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "data.bin"
    outside.write_bytes(b"data")
    _, payload, _ = commit_of(repo, cas("commit", str(outside)).out)
    assert payload == {"data.bin": b"data"}


def test_a_path_inside_another_is_stored_once(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "d").mkdir()
    (place / "d" / "x").write_bytes(b"1")
    _, payload, _ = commit_of(repo, cas("commit", "d/x", "d", "d").out)
    assert payload == {"d": {"x": b"1"}}


def test_head_is_the_previous_of_the_next(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "x").write_bytes(b"1")
    first, *_ = commit_of(repo, cas("commit", "x").out)
    second, *_ = commit_of(repo, cas("commit", "x", "--parent", "dataset=HEAD:x").out)
    assert repo.commit(second).parents == (
        Parent("previous", first),
        Parent("dataset", first, "x"),
    )


def test_params_and_metrics_are_the_record(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "x").write_bytes(b"1")
    args = ["-p", "lr=0.5", "-p", "name=a=b", "--metric", "acc=0.75", "-e", "exp", "-m", "hello"]
    told = cas("commit", "x", *args, "--json").json
    id, _, record = commit_of(repo, told["id"])
    commit = repo.commit(id)
    assert (commit.message, commit.experiment) == ("hello", "exp")
    assert repo.document(commit.tree, "params.json") == {"lr": 0.5, "name": "a=b"}
    assert repo.document(commit.tree, "summary.json") == {"acc": {"last": 0.75}}
    assert commit.volume is not None
    assert commit.volume.given_bytes == told["given_bytes"] == 1 + _size(record)


def test_committing_the_same_again_stores_next_to_nothing(
    cas: Cas, repo: Repo, place: Path
) -> None:
    (place / "x").write_bytes(bytes(range(256)) * 4000)
    first = cas("commit", "x", "--json").json
    second = cas("commit", "x", "--json").json
    assert second["given_bytes"] == first["given_bytes"] > 1_000_000
    assert second["stored_bytes"] < 200


def test_the_author_is_a_setting(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "x").write_bytes(b"1")
    cas("config", "author", "Ada")
    id, *_ = commit_of(repo, cas("commit", "x").out)
    assert repo.commit(id).author == "Ada"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("missing", 3, "missing"),
        ("x -p lr", 2, "NAME=VALUE"),
        ("x --metric acc=high", 2, "number"),
        ("x --parent dataset=nope", 3, "nope"),
        ("x -e a:b", 2, "a:b"),
        ("pipe", 2, "a pipe"),
    ],
)
def test_bad_input(cas: Cas, repo: Repo, line: str, code: int, said: str) -> None:
    Path("x").write_bytes(b"1")
    os.mkfifo("pipe")
    result = cas("commit", *line.split())
    assert result.code == code
    assert said in result.err
    assert "heads/main" not in repo.refresh().refs


@pytest.mark.parametrize("role", ["previous", "Data", "a_b"])
def test_roles_that_cannot_be_given(cas: Cas, repo: Repo, place: Path, role: str) -> None:
    (place / "x").write_bytes(b"1")
    cas("commit", "x")
    assert cas("commit", "x", "--parent", f"{role}=HEAD").code == 2


def test_two_paths_of_one_name_are_refused(
    cas: Cas, repo: Repo, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one, two = tmp_path_factory.mktemp("one") / "f", tmp_path_factory.mktemp("two") / "f"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert cas("commit", str(one), str(two)).code == 2


def test_a_files_id_is_its_plain_blake3(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "x").write_bytes(b"hello")
    cas("commit", "x")
    (row,) = [row for row in cas("ls", "HEAD", "--json").json if row["path"] == "x"]
    assert row["id"] == str(blob_id(b"hello"))


def test_a_move_is_shown_then_done(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "d").mkdir()
    (place / "d" / "x").write_bytes(b"1" * 2000)
    (place / "y").write_bytes(b"2")
    shown = cas("commit", "--move", "--dry-run", "d", "y")
    assert shown.lines == ["d/x", "y", "would commit and delete 2 files, 2.0 kB"]
    assert "heads/main" not in repo.refresh().refs
    told = cas("commit", "--move", "--dry-run", "d", "--json").json
    assert told == {"files": ["d/x"], "bytes": 2000, "done": False}
    result = cas("commit", "--move", "d", "y", "-m", "away")
    assert "2 of 2 files deleted" in result.err
    assert not (place / "d").exists()
    id, payload, _ = commit_of(repo, result.out)
    assert payload == {"d": {"x": b"1" * 2000}, "y": b"2"}
    assert repo.commit(id).message == "away"
    cas("checkout", "HEAD", "--to", "back")
    assert (place / "back" / "d" / "x").read_bytes() == b"1" * 2000


def test_a_move_that_leaves_something_says_so(
    cas: Cas, repo: Repo, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "x").write_bytes(b"1")
    monkeypatch.setattr("cas.repo.trees.folder._is_same", lambda *_: False)
    result = cas("commit", "--move", "x", "--json", session=Session())
    assert result.code == 6
    assert result.json["kept"] == [{"path": "x", "reason": "it has changed since it was committed"}]
    assert result.json["removed"] == 0
    assert "x: it has changed since it was committed: left as they are" in result.err
    assert (place / "x").exists()
    assert commit_of(repo, result.json["commit"]["id"])[1] == {"x": b"1"}


@pytest.mark.parametrize(
    ("line", "code"), [("--dry-run x", 2), ("--move link", 6), ("--move .", 6), ("--move ../x", 6)]
)
def test_what_cannot_be_moved(cas: Cas, repo: Repo, place: Path, line: str, code: int) -> None:
    (place / "x").write_bytes(b"1")
    (place / "link").symlink_to("x")
    assert cas("commit", *line.split()).code == code
    assert (place / "x").exists()
    assert "heads/main" not in repo.refresh().refs
