"""A file is deleted only while its bytes stand in the published commit, whatever goes wrong."""

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cas.errors import InvalidInputError, NotFoundError, RefusedError
from cas.ids import Buffer
from cas.repo.person import Told, commit_paths
from cas.repo.repo import Repo
from cas.repo.trees import folder as folders
from cas.repo.trees import move
from cas.repo.trees.move import CHANGED, MovePlan, execute, plan
from tests.support.builders import noise, read_tree, reopened, repository

TOLD = Told("ada")
CONTENTS = {"a": b"a" * 10, "d/b": noise(1, 700_000), "d/e/c": noise(2, 5000), "d/e/empty": b""}


def filled(base: Path) -> Path:
    """Put the files of a test into a folder."""
    for name, data in CONTENTS.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(data)
    return base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return filled(tmp_path)


@pytest.fixture
def repo(base: Path) -> Repo:
    return repository(base)


def planned(repo: Repo, base: Path, *names: str) -> MovePlan:
    return plan(repo, [Path(name) for name in names or ("a", "d")], base)


def on_disk(base: Path) -> dict[str, bytes]:
    found = {}
    for path in base.rglob("*"):
        if ".cas" not in path.parts and path.is_file():
            found[str(path.relative_to(base))] = path.read_bytes()
    return found


def committed(repo: Repo) -> dict[str, bytes]:
    """Return the files of HEAD as a fresh process reads them."""
    again = reopened(repo)
    head = again.root.refs.get("heads/main")
    payload = None if head is None else again.commit(head).payload
    return {} if payload is None else dict(_flat("", read_tree(again, payload)))


def _flat(front: str, tree: dict[str, Any]) -> Iterable[tuple[str, bytes]]:
    for name, item in tree.items():
        if isinstance(item, bytes):
            yield front + name, item
        else:
            yield from _flat(f"{front}{name}/", item)


def after_commit(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen between the commit and the first look at a file."""

    def commit(*args: Any, **options: Any) -> Any:
        done = commit_paths(*args, **options)
        happens()
        return done

    monkeypatch.setattr(move, "commit_paths", commit)


def test_files_go_once_they_are_in_the_commit(repo: Repo, base: Path) -> None:
    (base / "other").write_bytes(b"stays")
    wanted = planned(repo, base)
    assert (wanted.paths, wanted.files) == ((b"a", b"d"), (b"a", b"d/b", b"d/e/c", b"d/e/empty"))
    assert wanted.folders == (b"d/e", b"d")
    assert wanted.size_bytes == sum(map(len, CONTENTS.values()))
    assert on_disk(base) == CONTENTS | {"other": b"stays"}  # a plan changes nothing
    assert committed(repo) == {}
    done = execute(repo, wanted, TOLD)
    assert (done.removed, done.removed_bytes, done.kept) == (4, wanted.size_bytes, ())
    assert on_disk(base) == {"other": b"stays"}
    assert not (base / "d").exists()
    assert committed(repo) == CONTENTS


def test_only_what_was_named_goes_and_folders_with_something_in_them_stay(
    repo: Repo, base: Path
) -> None:
    (base / "d" / "e" / ".git").mkdir()
    (base / "d" / "e" / ".git" / "HEAD").write_bytes(b"ref")
    done = execute(repo, planned(repo, base, "d/e"), TOLD)
    assert done.removed == 2
    assert on_disk(base) == {
        name: data for name, data in CONTENTS.items() if not name.startswith("d/e/")
    } | {"d/e/.git/HEAD": b"ref"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "working folder itself"),
        ("..", "outside"),
        ("/etc/hostname", "outside"),
        ("link", "link is a link"),
        ("around/b", "around is a link"),
        ("linked", "linked/inner is a link"),
        (".cas", "belongs to cas"),
        ("d/.git/x", "belongs to cas or git"),
        ("store", "holds the repository"),
        ("store/deep/.cas/packs", "belongs to cas"),
        ("gone", "gone"),
        ("pipe", "neither"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_written(
    base: Path, name: str, said: str
) -> None:
    repo = repository(base / "store" / "deep")
    (base / "link").symlink_to("a")
    (base / "around").symlink_to("d")
    (base / "linked").mkdir()
    (base / "linked" / "inner").symlink_to("../a")
    os.mkfifo(base / "pipe")
    before = on_disk(base)
    with pytest.raises((RefusedError, NotFoundError, InvalidInputError), match=said):
        planned(repo, base, "a", name)
    assert on_disk(base) == before
    assert committed(repo) == {}


def _renamed_over(path: Path, data: bytes) -> None:
    path.with_name("new").write_bytes(data)
    path.with_name("new").rename(path)


def _linked(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda path: path.write_bytes(noise(3, 700_000)),
    "longer": lambda path: path.write_bytes(CONTENTS["d/b"] + b"x"),
    "shorter": lambda path: path.write_bytes(CONTENTS["d/b"][:-1]),
    "another file": lambda path: _renamed_over(path, noise(4, 700_000)),
    "a link": _linked,
    "a folder": _made_a_folder,
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_changes_after_it_was_committed_stays(
    repo: Repo, base: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_commit(monkeypatch, lambda: CHANGES[how](base / "d" / "b"))
    done = execute(repo, planned(repo, base), TOLD)
    assert done.kept == ((b"d/b", CHANGED),)
    assert done.removed == 3
    assert os.path.lexists(base / "d" / "b")
    assert committed(repo) == CONTENTS


def test_what_changes_before_it_is_committed_stays_if_it_is_no_file_there(
    repo: Repo, base: Path
) -> None:
    wanted = planned(repo, base)
    (base / "d").rename(base / "away")
    (base / "d").write_bytes(b"a file")
    _made_a_folder(base / "a")
    done = execute(repo, wanted, TOLD)
    assert done.kept == tuple((path, CHANGED) for path in wanted.files)
    assert on_disk(base)["d"] == b"a file"
    assert (base / "a").is_dir()


def test_a_file_that_is_new_since_the_plan_is_committed_and_stays(repo: Repo, base: Path) -> None:
    wanted = planned(repo, base, "d")
    (base / "d" / "new").write_bytes(b"new")
    execute(repo, wanted, TOLD)
    assert on_disk(base) == {"a": CONTENTS["a"], "d/new": b"new"}
    assert committed(repo)["d/new"] == b"new"


@pytest.mark.parametrize(
    "change",
    [
        lambda path: _renamed_over(path, b"new"),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.write_bytes(b"new"),
    ],
)
def test_what_changes_while_it_is_compared_stays(
    repo: Repo, base: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = folders._is_same

    def compared(fd: int, data: Iterable[Buffer]) -> bool:
        same = compare(fd, data)
        change(base / "a")
        return same

    monkeypatch.setattr(folders, "_is_same", compared)
    done = execute(repo, planned(repo, base, "a"), TOLD)
    assert (done.removed, done.kept) == (0, ((b"a", CHANGED),))
    assert (base / "a").exists()


def test_a_folder_that_becomes_a_link_is_not_gone_through(
    repo: Repo, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = base / "elsewhere"

    def swap() -> None:
        (base / "d").rename(elsewhere)
        (base / "d").symlink_to("elsewhere")

    after_commit(monkeypatch, swap)
    done = execute(repo, planned(repo, base, "d"), TOLD)
    assert done.removed == 0
    assert [path for path, _ in done.kept] == [b"d/b", b"d/e/c", b"d/e/empty"]
    assert (elsewhere / "b").read_bytes() == CONTENTS["d/b"]


def test_what_cannot_be_read_back_stays(
    repo: Repo, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage() -> None:
        for pack in (base / ".cas" / "packs").rglob("*"):
            data = bytearray(pack.read_bytes()) if pack.is_file() else bytearray()
            at = data.find(CONTENTS["d/b"][1000:1100])
            if at >= 0:
                data[at] ^= 1
                pack.chmod(0o644)
                pack.write_bytes(data)

    after_commit(monkeypatch, damage)
    done = execute(repo, planned(repo, base), TOLD)
    ((path, reason),) = done.kept
    assert path == b"d/b"
    assert reason != CHANGED
    assert (base / "d" / "b").read_bytes() == CONTENTS["d/b"]


def test_a_file_that_cannot_be_deleted_is_told(
    repo: Repo, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: bytes, *, dir_fd: int) -> None:
        raise PermissionError(errno.EACCES, "no", path)

    wanted = planned(repo, base, "a")
    after_commit(monkeypatch, lambda: monkeypatch.setattr(os, "unlink", refuse))
    done = execute(repo, wanted, TOLD)
    monkeypatch.undo()
    ((path, reason),) = done.kept
    assert path == b"a"
    assert "permission" in reason
    assert (base / "a").exists()
