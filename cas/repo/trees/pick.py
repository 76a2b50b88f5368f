"""One tensor of a commit by its name, and where its bytes are stored: nothing else is read.

A tensor stands in a state, or in a file of tensors (safetensors, .npy, .npz, torch.save, GGUF).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from cas.errors import AmbiguousError, CorruptionError, InvalidInputError, NotFoundError
from cas.ids import BlobId, Buffer, ManifestId, blob_id
from cas.objects.arrays import NAMES, NUMPY
from cas.objects.containers.files import contents_in
from cas.objects.manifest import DTYPES, INLINE_LIMIT, State, TensorRow
from cas.objects.named import named_tensors, near, pick
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.trees.names import shown
from cas.repo.trees.tensors import StoredFile

if TYPE_CHECKING:
    from typing import BinaryIO

    from cas.objects.containers.files import FoundTensor

ANY_TENSOR = "tensor"  # the tag of what takes more than NumPy
NAMELESS = "the tensor"  # of a .npy file


@dataclass(frozen=True, slots=True)
class PickedTensor:
    """A stored tensor: row-major, little-endian bytes, from `start` on in a blob or right here.

    `alone` is the state that is nothing but this tensor; None where no state knows the dtype.
    """

    name: str
    dtype: str
    nbytes: int
    blob: BlobId
    start: int
    data: bytes | None
    alone: State | None

    def pieces(self, repo: Repo, start: int, stop: int) -> Iterator[Buffer]:
        """Yield these of its bytes, piece by piece."""
        if self.data is not None:
            return iter([self.data[start:stop]])
        return repo.store.slice(self.blob, self.start + start, self.start + stop)

    def fill(self, repo: Repo, target: memoryview) -> None:
        """Write all its bytes into `target`."""
        if repo.store.shape(self.blob)[0] == self.nbytes:
            repo.store.fill(self.blob, target)
            return
        at = 0
        for piece in self.pieces(repo, 0, self.nbytes):
            target[at : at + len(piece)] = piece
            at += len(piece)


def pick_tensor(repo: Repo, entry: Entry, name: str) -> PickedTensor:
    """Return the tensor with this name in a state or a file; "" is the only one there is.

    Raises NotFoundError with the names that are near, AmbiguousError, and InvalidInputError for
    what holds no tensors.
    """
    if entry.kind is EntryKind.FILE:
        return _in_file(repo, entry, name)
    manifest = repo.manifest(ManifestId(entry.id)) if entry.kind is EntryKind.STATE else None
    if not isinstance(manifest, State):
        raise InvalidInputError(f"there are no tensors in a {entry.kind.name.lower()}")
    return _in_state(repo, manifest, name)


def _in_state(repo: Repo, state: State, name: str) -> PickedTensor:
    named = list(named_tensors(state))
    if not name:
        _only([one.label for one in named])
    found = pick(named, name or named[0].label)
    row = found.row
    if row.data is None and repo.store.shape(row.id)[0] != row.nbytes:
        raise CorruptionError(f"{found.label} is not stored with its {row.nbytes} bytes")
    return PickedTensor(found.label, row.dtype, row.nbytes, row.id, 0, row.data, found.alone)


def _in_file(repo: Repo, entry: Entry, name: str) -> PickedTensor:
    id = BlobId(entry.id)
    file = StoredFile(repo.store, id)
    contents = contents_in(cast("BinaryIO", file))
    if contents is None:
        raise InvalidInputError(
            f"{shown(entry.name)} is no file whose tensors can be read one by one: that takes "
            "safetensors, .npy, .npz without compression, torch.save since PyTorch 1.6, or GGUF"
        )
    names = [tensor.name for tensor in contents.tensors]
    if not name:
        _only(names)
    found = [tensor for tensor in contents.tensors if not name or tensor.name == name]
    if not found:
        raise NotFoundError("tensor", name, near(name, names))
    if len(found) > 1:
        raise AmbiguousError(name, [f"{tensor.dtype} {list(tensor.shape)}" for tensor in found])
    return _picked(file, id, found[0])


def _picked(file: StoredFile, id: BlobId, tensor: "FoundTensor") -> PickedTensor:
    label = tensor.name or NAMELESS
    if tensor.offset is None:
        raise InvalidInputError(
            f"{label} is not stored row by row in its file: `cas checkout` gives the whole file"
        )
    data = None
    if tensor.nbytes <= INLINE_LIMIT:
        file.seek(tensor.offset)
        data = file.read(tensor.nbytes)
    alone = None
    if tensor.dtype in DTYPES:
        own = id if data is None else blob_id(data)
        row = TensorRow((tensor.name,), tensor.dtype, tensor.shape, own, data)
        tag = NUMPY.tensor_tag if tensor.dtype in NAMES else ANY_TENSOR
        alone = State([tag, 0], (row,))
    return PickedTensor(label, tensor.dtype, tensor.nbytes, id, tensor.offset, data, alone)


def _only(names: Sequence[str]) -> None:
    if len(names) != 1:
        raise InvalidInputError(f"there are {len(names)} tensors: name one; `cas ls` lists them")
