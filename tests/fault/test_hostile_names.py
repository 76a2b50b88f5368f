"""Hundreds of names in trees and in archives: nothing outside is written, nothing is executed."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cas.ids import TreeId
from cas.objects.containers.files import contents_in
from cas.objects.tree import Entry
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import checkout, ingest, names
from tests.fault.test_hostile_trees import DATA, Row, attempt, folder, leaf, link, snapshot
from tests.support import hostilenames, tensorfiles
from tests.support.builders import repository

REFUSED = hostilenames.refused()
HARMLESS: list[str | bytes] = [*hostilenames.harmless(), *hostilenames.raw()]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path / "home")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder to write to, with something precious beside it and in it."""
    world = tmp_path / "world"
    for place in ("outside", "out/.git", "out/.cas", "x", "out/a"):
        (world / place).mkdir(parents=True)
        (world / place / "config").write_bytes(b"precious")
    return world


def trees(repo: Repo, every: "list[str | bytes]", how: str) -> dict[Any, TreeId]:
    """Return a tree for each name: as a file, as a folder with a file in it, or as a link."""

    def build(tx: Transaction) -> dict[Any, TreeId]:
        writer, target = tx.writer, b"../../outside"
        writer.blob(DATA)
        below = leaf(writer, Row("config"))
        made = {}
        for name in every:
            text: Any = name
            if how == "file":
                made[name] = leaf(writer, Row(name))
            elif how == "folder":
                made[name] = leaf(writer, folder(name, below))
            else:
                made[name] = leaf(writer, link(text, target), links=(target,))
        return made

    return transact(repo, "test", build)


@pytest.mark.parametrize("how", ["file", "folder", "link"])
def test_what_would_leave_the_folder_is_refused(repo: Repo, world: Path, how: str) -> None:
    before = snapshot(world)
    for name, tree in trees(repo, list(REFUSED), how).items():
        assert attempt(repo, tree, world / "out", force=True) is not None, repr(name)
        assert snapshot(world) == before, repr(name)


@pytest.mark.parametrize("how", ["file", "folder", "link"])
def test_what_is_only_odd_stays_in_the_folder(repo: Repo, world: Path, how: str) -> None:
    before = snapshot(world)
    for number, (name, tree) in enumerate(trees(repo, HARMLESS, how).items()):
        target = world / "out" / f"{number}"
        assert attempt(repo, tree, target, force=False) is None, repr(name)
        raw = name if isinstance(name, bytes) else name.encode()
        assert os.listdir(os.fsencode(target)) == [raw], repr(name)
    assert snapshot(world) == before


def test_names_too_long_for_the_disk_are_refused_there(repo: Repo, world: Path) -> None:
    before = snapshot(world)
    for name in ("x" * 256, "é" * 128, "x" * 4096, "x" * 4097):
        (tree,) = trees(repo, [name], "file").values()
        assert attempt(repo, tree, world / "out", force=True) is not None
    assert snapshot(world) == before


def test_a_check_left_out_is_noticed(
    repo: Repo, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "refusal", lambda name: None)
    before = snapshot(world)
    written = 0
    for tree in trees(repo, [".git", ".GIT", "C:x", ".git "], "folder").values():
        written += attempt(repo, tree, world / "out", force=True) is None
    assert written == 4
    assert snapshot(world) != before


def archives(name: str) -> dict[str, bytes]:
    """Return tensor files in which something has this name."""
    data = bytes(400)
    pushed = tensorfiles.state_dict({name: tensorfiles.tensor("0", (100,))})
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as made:
        for member, content in {"data.pkl": pushed, "data/0": data, "byteorder": b"little"}.items():
            info = zipfile.ZipInfo("-")
            info.filename = f"{name}/{member}"  # which a zero would cut when it is made
            made.writestr(info, content)
    return {
        "state dict": tensorfiles.archive(pushed, {"0": data}),
        "folder of an archive": zipped.getvalue(),
        "storage": tensorfiles.archive(
            tensorfiles.state_dict({"w": tensorfiles.tensor(name, (100,))}), {name: data}
        ),
        "safetensors": tensorfiles.safetensors({name: ("F32", [100], data)}),
        "gguf": tensorfiles.gguf({name: (0, [100], data)}),
    }


def test_names_in_tensor_files_are_only_names(repo: Repo, world: Path) -> None:
    before, known = snapshot(world), 0
    (world / "out" / "files").mkdir()
    for number, name in enumerate([*REFUSED, *hostilenames.harmless()]):
        for kind, data in archives(name).items():
            contents = contents_in(io.BytesIO(data))
            known += contents is not None
            for row in contents.tensors if contents else ():
                assert row.offset is None or data[row.offset : row.offset + row.nbytes] == bytes(
                    400
                )
            if number % 10 == 0:
                (world / "out" / "files" / f"{number} {kind}").write_bytes(data)

    def make(tx: Transaction) -> Entry:
        return ingest.add(tx.writer, world / "out" / "files")

    entry = transact(repo, "test", make)
    assert attempt(repo, TreeId(entry.id), world / "out" / "again", force=False) is None
    for path in (world / "out" / "files").iterdir():
        assert (world / "out" / "again" / path.name).read_bytes() == path.read_bytes()
    assert known > 1000
    assert snapshot(world) == before


def test_nothing_in_an_archive_is_executed(repo: Repo, world: Path) -> None:
    before = snapshot(world)
    canary = tensorfiles.canary(str(world / "executed"))
    files = {
        "torch": tensorfiles.archive(canary, {"0": bytes(16)}),
        "bare pickle": canary,
        "in a member": tensorfiles.archive(
            tensorfiles.state_dict({"w": tensorfiles.tensor("0", (4,))}),
            {"0": bytes(16), "../../executed.py": canary},
        ),
        "npy of objects": b"\x93NUMPY\1\0" + b"v\0"
        + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n" + canary,
    }  # fmt: skip
    for name, data in files.items():
        (world / "out" / name).write_bytes(data)
        contents_in(io.BytesIO(data))

    def make(tx: Transaction) -> Entry:
        return ingest.add(tx.writer, world / "out")

    entry = transact(repo, "test", make)
    assert attempt(repo, TreeId(entry.id), world / "out" / "again", force=False) is None
    assert not (world / "executed").exists()
    assert snapshot(world) == before


def test_there_are_enough_of_them() -> None:
    assert len(REFUSED) >= 250
    assert len(HARMLESS) >= 100
    assert all(names.refusal(name.encode()) for name in REFUSED)
    raw = [name if isinstance(name, bytes) else name.encode() for name in HARMLESS]
    assert not [name for name in raw if names.refusal(name)]
