"""Archives of `numpy.savez`: a zip of .npy files.

An array that is compressed, or in a form that `npy` does not take, has no place and no name here:
its bytes are opaque.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from cas.objects.containers import npy
from cas.objects.containers.found import Contents, OddError
from cas.objects.containers.zips import Member

KIND: Final = "npz"
SUFFIX: Final = ".npy"


def read(file: BinaryIO, size: int, found: Sequence[Member]) -> Contents:
    """Return what is in an .npz file of `size` bytes."""
    arrays = list(_arrays(file, found))
    if not arrays:
        raise OddError("no array that is stored as it is")
    tensors = [array.tensor for array in arrays]
    return Contents.of(KIND, tensors, [array.span for array in arrays], size)


def _arrays(file: BinaryIO, found: Sequence[Member]) -> Iterator[npy.Array]:
    for member in found:
        if not member.stored:
            continue
        name = member.name.removesuffix(SUFFIX)
        try:
            array = npy.array_in(file, member.offset, member.nbytes, name)
        except OddError:
            continue
        yield array
