"""Reading without a run: `cas.load`, `cas.read_tensor` and `cas.open_file`.

Only what is asked for is read: one tensor's blocks, the pieces of a file that a slice touches.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cas.errors import AmbiguousError, InvalidInputError, NotFoundError, UnsupportedError
from cas.ids import BlobId, CommitId, ManifestId
from cas.objects.arrays import memory
from cas.objects.commit import CHECKPOINT, DRAFT, RUN
from cas.objects.framework import Memory
from cas.objects.kind import Kind
from cas.objects.manifest import Column, Series
from cas.objects.states import load_state
from cas.objects.tree import Entry, EntryKind
from cas.repo import place
from cas.repo.repo import Repo
from cas.repo.revision import resolve_path
from cas.repo.trees.contents import file_at, top
from cas.repo.trees.names import shown
from cas.repo.trees.pick import pick_tensor
from cas.repo.trees.tensors import StoredFile
from cas.tracking.captured import frameworks
from cas.tracking.checkpoints import whole
from cas.tracking.checkpoints.checkpoint import PRUNED, STATE, checkpoint_at, read_state
from cas.tracking.start import asked_for, author

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER: Final = 256 * 1024
Given = str | os.PathLike[str] | None


def load(rev: str, *, repo: Given = None) -> Any:
    """Return a stored value: of a checkpoint its whole state, as it was saved.

    A run stands for its newest checkpoint; REV:PATH names another state, or a series of metrics,
    which is a dict of (steps, values) by name. Tensors are new and the caller's own; those of a
    sharded checkpoint are put together from what each process has saved.
    """
    opened = _opened(repo)
    sharded = _sharded(opened, rev)
    if sharded is not None:
        return whole.load(opened, sharded).state
    path, entry = stored_at(opened, rev)
    if entry.kind not in {EntryKind.STATE, EntryKind.SERIES}:
        raise InvalidInputError(f"{path} is no state: cas.open_file reads a file")
    manifest = opened.manifest(ManifestId(entry.id))
    if isinstance(manifest, Series):
        return {
            row.name: (_points(opened, row.steps, "<i8"), _points(opened, row.values, "<f8"))
            for row in manifest.rows
        }
    return read_state(opened, ManifestId(entry.id))


def read_tensor(rev: str, name: str = "", *, repo: Given = None) -> Any:
    """Return one tensor of a checkpoint, such as `model.layer1.weight`, and read no other.

    REV:PATH names another state, or a file of tensors (safetensors, .npy, .npz, torch.save, GGUF).
    A tensor of a state comes back as what was saved; one of a file as an array of NumPy, or of
    torch where NumPy lacks the dtype. The only tensor there is needs no name. One of a sharded
    checkpoint comes whole.
    """
    opened = _opened(repo)
    sharded = _sharded(opened, rev)
    if sharded is not None:
        return whole.read_one(opened, opened.commit(sharded), name)
    found = pick_tensor(opened, stored_at(opened, rev)[1], name)
    if found.alone is None:
        raise UnsupportedError(
            f"{found.name} has dtype {found.dtype}, which only its own format knows: "
            "`cas cat --tensor` gives its bytes"
        )

    def read(_: BlobId, nbytes: int) -> Memory:
        target = memory(nbytes)
        found.fill(opened, memoryview(target))
        return target

    try:
        return load_state(found.alone, frameworks.needed(found.alone), read)
    except NotFoundError as error:
        raise NotFoundError("data of", found.name, PRUNED) from error


def open_file(rev: str, *, repo: Given = None) -> io.BufferedReader:
    """Open a stored file, REV:PATH, to read in it anywhere; only the pieces there are read."""
    opened = _opened(repo)
    path, entry = stored_at(opened, rev)
    if entry.kind is not EntryKind.FILE:
        raise InvalidInputError(f"{path} is no file: cas.load reads a state")
    return io.BufferedReader(_Readable(opened, BlobId(entry.id)), BUFFER)


def stored_at(repo: Repo, rev: str) -> tuple[str, Entry]:
    """Return what REV:PATH names, and its path; without a path, the one state of REV."""
    id, path = resolve_path(repo, rev)
    if not path:
        word = rev.partition(":")[0]
        if repo.commit(id).kind in {RUN, DRAFT, CHECKPOINT}:
            id, path = checkpoint_at(repo, word), STATE
        else:
            found = [same[0] for same in top(repo, id) if same[0].entry.kind is EntryKind.STATE]
            if not found:
                hint = f"name what to read as {word}:PATH; `cas ls {word}` lists it"
                raise NotFoundError("state", f"in {word}", hint)
            if len(found) > 1:
                raise AmbiguousError(word, [f"{word}:{shown(one.path)}" for one in found])
            path = found[0].path
    return shown(path), file_at(repo, id, path)


def _sharded(repo: Repo, rev: str) -> CommitId | None:
    """Return the sharded checkpoint that is asked for as a whole; None for anything else."""
    id, path = resolve_path(repo, rev)
    if path or repo.commit(id).kind not in {RUN, DRAFT, CHECKPOINT}:
        return None
    id = checkpoint_at(repo, rev.partition(":")[0])
    return id if whole.is_sharded(repo, repo.commit(id)) else None


class _Readable(StoredFile):
    """A stored file as Python's buffered readers want one."""

    def __init__(self, repo: Repo, id: BlobId) -> None:
        super().__init__(repo.store, id)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place: from the start, from here or from the end."""
        if whence == io.SEEK_CUR:
            offset, whence = self.tell() + offset, io.SEEK_SET
        before = self.tell()
        if super().seek(offset, whence) < 0:
            super().seek(before)
            raise ValueError("there is nothing before the first byte")
        return self.tell()

    def readinto(self, target: "WriteableBuffer") -> int:
        """Read the next bytes into a buffer; return how many."""
        view = memoryview(target).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def _opened(given: Given) -> Repo:
    named = asked_for(given)
    return Repo.open(place.find(Path(named or ".").absolute()), who=author())


def _points(repo: Repo, column: Column, dtype: str) -> Any:
    import numpy as np

    data = column.data if column.data is not None else repo.store.read(Kind.BLOB, column.id)
    return np.frombuffer(data, dtype)
