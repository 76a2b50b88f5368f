"""Trees that no ingest would make: each is refused or harmless, and nothing outside is touched."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cas.errors import CasError, NotFoundError
from cas.ids import ObjectId, TreeId, blob_id
from cas.objects import canonical
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.repo.trees import checkout
from cas.repo.trees.names import METADATA
from cas.store.writer import ObjectWriter
from tests.support.builders import repository

FILE, LINK, TREE, STATE, NAMED = 1, 2, 3, 4, 0x80
DATA = b"evil"
MISSING = ObjectId(b"\x77" * 32)


@dataclass(frozen=True)
class Row:
    """One row of a leaf, right or wrong."""

    name: str | bytes
    kind: int = FILE
    id: bytes = blob_id(DATA)
    size: Any = 4
    mode: Any = 0o644


def leaf(writer: ObjectWriter, *rows: Row, links: tuple[bytes, ...] = (), **other: Any) -> TreeId:
    """Write a leaf without any check of what is in it."""
    fields: dict[str, Any] = {
        "v": 1,
        "level": 0,
        "names": [row.name for row in rows],
        "kinds": bytes(row.kind for row in rows),
        "modes": [row.mode for row in rows],
        "sizes": [row.size for row in rows],
        "ids": b"".join(row.id for row in rows),
        "links": list(links),
        **other,
    }
    kept = {name: value for name, value in fields.items() if value is not ...}
    return writer.tree(canonical.encode(kept))


def inner(writer: ObjectWriter, *children: tuple[str, bytes, int, int], level: int = 1) -> TreeId:
    """Write an inner node without any check; a child is last name, id, size and count."""
    columns = {
        "v": 1,
        "level": level,
        "names": [child[0] for child in children],
        "ids": b"".join(child[1] for child in children),
        "sizes": [child[2] for child in children],
        "counts": [child[3] for child in children],
    }
    return writer.tree(canonical.encode(columns))


def link(name: str, target: bytes, **other: Any) -> Row:
    return Row(name, LINK, **{"id": blob_id(target), "size": len(target), "mode": 0, **other})


def folder(name: str | bytes, tree: bytes, mode: int = 0o755) -> Row:
    return Row(name, TREE, tree, 0, mode)


def deep(writer: ObjectWriter) -> TreeId:
    tree = leaf(writer, Row("bottom"))
    for _ in range(300):
        tree = leaf(writer, folder("d", tree))
    return tree


def bomb(writer: ObjectWriter) -> TreeId:
    tree = leaf(writer, Row("a"))
    for _ in range(60):
        tree = leaf(writer, folder("x", tree), folder("y", tree))
    return tree


Make = Callable[[ObjectWriter], TreeId]


def named(name: str | bytes) -> Make:
    """A file of that name, and a folder of that name with a file in it."""

    def make(writer: ObjectWriter) -> TreeId:
        below = leaf(writer, Row("config"))
        return leaf(writer, Row("0"), folder("d", leaf(writer, Row(name))), folder(name, below))

    return make


# Names that would leave the folder, or are a metadata folder somewhere.
NAMES: list[str | bytes] = [
    "", ".", "..", "a/b", "/abs", "../x", "a/../../x", "\0", "x\0y", "x" * 5000, b"text",
    ".git", ".GIT", ".Git", ".gIt", ".cas", ".CAS", ".Cas", ".git ", ".git.", ".git. . ", ".cas...",
    ".git::$INDEX_ALLOCATION", ".git:x", ".cas:stream", "git~1", "GIT~1", "git~12", "cas~1",
    ".g\u200cit", "\u200b.git", ".gi\ufefft", ".c\u200das", ".ca\u017f", ".git\u2063", ".g\u00adit",
    ".git\\config", "d\\.GIT\\hooks\\x", "a\\..\\..\\b", "..\\x", "x\\..", "\\abs",
    "\\\\server\\share", "C:", "c:x", "C:\\x", "..:x", ".. ", "..   ", ".git ::$DATA",
]  # fmt: skip

REFUSED: dict[str, Make] = {
    **{f"name {name!r:.40}": named(name) for name in NAMES},
    "a link and a folder of one name": lambda w: leaf(
        w, link("d", b"../outside"), folder("d", leaf(w, Row("f"))), links=(b"../outside",)
    ),
    "a folder and a link of one name": lambda w: leaf(
        w, folder("d", leaf(w, Row("f"))), link("d", b"../outside"), links=(b"../outside",)
    ),
    "names out of order": lambda w: leaf(w, Row("b"), Row("a")),
    "a link without a target": lambda w: leaf(w, link("l", b"x")),
    "a target without a link": lambda w: leaf(w, Row("l"), links=(b"x",)),
    "an empty target": lambda w: leaf(w, link("l", b""), links=(b"",)),
    "a target with a zero byte": lambda w: leaf(w, link("l", b"a\0b"), links=(b"a\0b",)),
    "a target that is not its id": lambda w: leaf(w, link("l", b"x"), links=(b"y",)),
    "an endless target": lambda w: leaf(w, link("l", b"x" * 70_000), links=(b"x" * 70_000,)),
    "a target that is too long to make": lambda w: leaf(
        w, link("l", b"x" * 60_000), links=(b"x" * 60_000,)
    ),
    "a link that is only named": lambda w: leaf(
        w, Row("l", LINK | NAMED, blob_id(b"x"), 1, 0), links=(b"x",)
    ),
    "set-user-id": lambda w: leaf(w, Row("f", mode=0o4755)),
    "a negative mode": lambda w: leaf(w, Row("f", mode=-1)),
    "a mode of a state": lambda w: leaf(w, Row("f", STATE, mode=0o644)),
    "a negative size": lambda w: leaf(w, Row("f", size=-1)),
    "a size beyond all": lambda w: leaf(w, Row("f", size=2**64 - 1)),
    "a size that is no number": lambda w: leaf(w, Row("f", size=4.0)),
    "a size that lies low": lambda w: leaf(w, Row("f", size=1)),
    "a size that lies high": lambda w: leaf(w, Row("f", size=2**40)),
    "kind 0": lambda w: leaf(w, Row("f", 0)),
    "kind 6": lambda w: leaf(w, Row("f", 6)),
    "kind 99": lambda w: leaf(w, Row("f", 99)),
    "a file that is a tree": lambda w: leaf(w, Row("f", id=leaf(w))),
    "a folder that is a file": lambda w: leaf(w, folder("d", w.blob(DATA))),
    "a file that is nowhere": lambda w: leaf(w, Row("f", id=MISSING)),
    "a folder that is nowhere": lambda w: leaf(w, folder("d", MISSING)),
    "ids cut short": lambda w: leaf(w, Row("f", id=b"x" * 31)),
    "columns of different lengths": lambda w: leaf(w, Row("f"), modes=[]),
    "a field too many": lambda w: leaf(w, Row("f"), extra=1),
    "a field too few": lambda w: leaf(w, Row("f"), kinds=...),
    "a newer version": lambda w: leaf(w, Row("f"), v=2),
    "no version": lambda w: leaf(w, Row("f"), v=0),
    "a leaf that says level 1": lambda w: leaf(w, Row("f"), level=1),
    "no map": lambda w: w.tree(canonical.encode([1, 2])),
    "no canonical bytes": lambda w: w.tree(b"\xc1"),
    "one child": lambda w: inner(w, ("a", leaf(w, Row("a")), 4, 1)),
    "no child": inner,
    "children that overlap": lambda w: inner(
        w, ("b", leaf(w, Row("a"), Row("b")), 8, 2), ("c", leaf(w, Row("b"), Row("c")), 8, 2)
    ),
    "a child with another last name": lambda w: inner(
        w, ("a", leaf(w, Row("a")), 4, 1), ("z", leaf(w, Row("b")), 4, 1)
    ),
    "a child with another count": lambda w: inner(
        w, ("a", leaf(w, Row("a")), 4, 1), ("b", leaf(w, Row("b")), 4, 9)
    ),
    "a child of its own level": lambda w: inner(
        w,
        ("b", inner(w, ("a", leaf(w, Row("a")), 4, 1), ("b", leaf(w, Row("b")), 4, 1)), 8, 2),
        ("c", leaf(w, Row("c")), 4, 1),
    ),
    "folders without end": deep,
    "folders beyond counting": bomb,
}

HARMLESS: dict[str, Make] = {
    "a link to what is absolute": lambda w: leaf(
        w, link("l", b"/etc/passwd"), links=(b"/etc/passwd",)
    ),
    "a link out of the folder": lambda w: leaf(
        w, link("l", b"../outside/file"), links=(b"../outside/file",)
    ),
    "a link to itself": lambda w: leaf(w, link("l", b"l"), links=(b"l",)),
    "a link into the metadata folder": lambda w: leaf(
        w, link("l", b".git/hooks"), links=(b".git/hooks",)
    ),
    "a folder beside a link that differs in case": lambda w: leaf(
        w, link("D", b"../outside"), folder("d", leaf(w, Row("file"))), links=(b"../outside",)
    ),
    "a state": lambda w: leaf(w, Row("s", STATE, MISSING, 10, 0)),
    "a file that is only named": lambda w: leaf(w, Row("f", FILE | NAMED, MISSING, 10)),
    "a name that turns text around": lambda w: leaf(w, Row("\u202egnp.exe")),
    "names that only look like metadata": lambda w: leaf(
        w, Row(".case"), Row(".gitignore"), Row("cas"), Row("git"), Row("git~")
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return repository(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def trees(repo: Repo) -> dict[str, TreeId]:
    def build(transaction: Any) -> dict[str, TreeId]:
        transaction.writer.blob(DATA)
        return {name: make(transaction.writer) for name, make in {**REFUSED, **HARMLESS}.items()}

    return transact(repo, "test", build)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with something precious beside the one that is written to."""
    (tmp_path / "outside" / ".git").mkdir(parents=True)
    (tmp_path / "outside" / "file").write_bytes(b"precious")
    (tmp_path / "outside" / "f").write_bytes(b"precious")
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "x").mkdir()
    (tmp_path / "out" / ".git").mkdir(parents=True)
    (tmp_path / "out" / ".git" / "config").write_bytes(b"precious")
    (tmp_path / "out" / ".cas").mkdir()
    return tmp_path


def booby_trapped(world: Path) -> None:
    """Put links that lead outside where a checkout may want to write."""
    for name in ("d", "f", "a", "l", "D", "0"):
        os.symlink("../outside", world / "out" / name)


def snapshot(world: Path) -> dict[str, object]:
    """Everything but what a checkout may write: names, bits, bytes, targets, times."""
    found: dict[str, object] = {}
    for path in sorted(world.rglob("*")):
        parts = path.relative_to(world).parts
        if parts[0] == "out" and (len(parts) == 1 or parts[1].lower() not in METADATA):
            continue
        state = path.lstat()
        content = b"" if path.is_dir() else path.read_bytes()
        found["/".join(parts)] = (state.st_mode, state.st_ino, state.st_mtime_ns, content)
    return found


def attempt(repo: Repo, tree: TreeId, target: Path, *, force: bool) -> CasError | None:
    try:
        planned = checkout.plan(repo, tree, target, max_entries=10_000)
        checkout.execute(repo, planned, force=force)
    except CasError as error:
        return error
    return None


@pytest.mark.parametrize("trapped", [False, True], ids=["empty", "trapped"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_ingest_makes_is_refused(
    repo: Repo, trees: dict[str, TreeId], world: Path, name: str, trapped: bool
) -> None:
    if trapped:
        booby_trapped(world)
    before = snapshot(world)
    error = attempt(repo, trees[name], world / "out", force=trapped)
    assert error is not None
    assert isinstance(error, NotFoundError) == name.endswith("is nowhere")
    assert snapshot(world) == before


@pytest.mark.parametrize("trapped", [False, True], ids=["empty", "trapped"])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_only_odd_does_no_harm(
    repo: Repo, trees: dict[str, TreeId], world: Path, name: str, trapped: bool
) -> None:
    if trapped:
        booby_trapped(world)
    before = snapshot(world)
    assert attempt(repo, trees[name], world / "out", force=trapped) is None
    assert snapshot(world) == before


def test_a_second_tree_is_not_written_through_a_link_of_the_first(repo: Repo, world: Path) -> None:
    def build(transaction: Any) -> list[TreeId]:
        writer = transaction.writer
        writer.blob(DATA)
        return [
            leaf(writer, link("d", b"../outside"), links=(b"../outside",)),
            leaf(writer, folder("d", leaf(writer, Row("file")))),
        ]

    first, second = transact(repo, "test", build)
    before = snapshot(world)
    assert attempt(repo, first, world / "out", force=False) is None
    assert attempt(repo, second, world / "out", force=False) is not None
    assert attempt(repo, second, world / "out", force=True) is None
    assert (world / "out" / "d" / "file").read_bytes() == DATA
    assert snapshot(world) == before


def test_there_are_enough_of_them() -> None:
    assert len(REFUSED) + len(HARMLESS) >= 40
