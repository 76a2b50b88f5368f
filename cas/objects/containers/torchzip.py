"""Archives of `torch.save`: a zip of stored members, `data.pkl` and one record per storage.

Strict: nothing compressed, one folder, sizes that agree; the pickle is read as data by `statedict`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final

from cas.objects.containers import statedict
from cas.objects.containers.found import (
    MAX_HEADER,
    Contents,
    FoundTensor,
    OddError,
    Span,
    read_exactly,
    size_of,
)
from cas.objects.containers.statedict import Storage, Tensor
from cas.objects.containers.zips import Member
from cas.objects.manifest import DTYPES

KIND: Final = "torch.save"
PICKLE: Final = "data.pkl"
ORDER: Final = "byteorder"
DATA: Final = "data/"

Members = Mapping[str, Member]  # by their names below the archive's one folder


def read(file: BinaryIO, size: int, found: Sequence[Member]) -> Contents:
    """Return what is in a torch.save file of `size` bytes; tensors in the order of the pickle."""
    members = _inside(found)
    if PICKLE not in members:
        raise OddError(f"no {PICKLE} in the archive")
    if ORDER in members and _content(file, members[ORDER]) != b"little":
        raise OddError("big-endian, or nobody knows")
    tensors, storages = statedict.read(_content(file, members[PICKLE]))
    placed = [_placed(name, tensor, members) for name, tensor in tensors]
    return Contents.of(KIND, placed, _spans(members, _dtypes(tensors, storages)), size)


def _inside(found: Sequence[Member]) -> Members:
    folder = found[0].name.partition("/")[0] + "/" if found else "/"
    for member in found:
        if not member.stored or not member.name.startswith(folder):
            raise OddError(f"{member.name!r} is compressed, or not in {folder!r}")
    return {member.name.removeprefix(folder): member for member in found}


def _content(file: BinaryIO, member: Member) -> bytes:
    if member.nbytes > MAX_HEADER:
        raise OddError(f"a header of {member.nbytes} bytes")
    return read_exactly(file, member.offset, member.nbytes)


def _dtypes(
    tensors: Sequence[tuple[str, Tensor]], storages: Sequence[Storage]
) -> Mapping[str, str]:
    """Return the dtype of each storage that has one: its own, or that of all its tensors."""
    said: dict[str, set[str]] = {}
    for storage in storages:
        if storage.dtype:
            said.setdefault(storage.key, set()).add(storage.dtype)
    for _, tensor in tensors:
        said.setdefault(tensor.storage.key, set()).add(tensor.dtype)
    return {key: dtypes.pop() for key, dtypes in said.items() if len(dtypes) == 1}


def _spans(members: Members, dtypes: Mapping[str, str]) -> Iterator[Span]:
    for name, member in members.items():
        if name.startswith(DATA):
            dtype = dtypes.get(name.removeprefix(DATA), "")
            yield Span(member.offset, member.nbytes, dtype)


def _placed(name: str, tensor: Tensor, members: Members) -> FoundTensor:
    storage = tensor.storage
    member = members.get(f"{DATA}{storage.key}")
    width = DTYPES[storage.dtype] if storage.dtype else 1
    if member is None or member.nbytes != storage.count * width:
        raise OddError(f"the storage of {name!r} is missing or has another size")
    nbytes = size_of(tensor.dtype, tensor.shape)
    if tensor.start * DTYPES[tensor.dtype] > member.nbytes:
        raise OddError(f"{name!r} begins outside of its storage")
    whole = tensor.plain and tensor.start == 0 and nbytes == member.nbytes and _row_major(tensor)
    return FoundTensor(name, tensor.dtype, tensor.shape, member.offset if whole else None, nbytes)


def _row_major(tensor: Tensor) -> bool:
    step = 1
    for length, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if length == 0:
            return True
        if length > 1 and stride != step:
            return False
        step *= length
    return True
