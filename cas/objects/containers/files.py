"""Which tensors a file holds and where, for the kinds of files that are known.

Recognised by content, never by name: safetensors, .npy, .npz, torch.save, GGUF. Headers are parsed
strictly and without executing anything; a file with anything odd about it is opaque bytes, which
is no error.
"""

import os
from importlib import import_module
from typing import BinaryIO, Final, cast

from cas.objects.containers.found import Contents, FoundTensor, OddError, Span

__all__ = ["Contents", "FoundTensor", "Span", "contents_in", "may_be_known"]

HEAD: Final = 9
ZIP: Final = "zip"
# The readers by the bytes that their files begin with; safetensors begins with a length.
MODULES: Final = {b"PK\x03\x04": ZIP, b"\x93NUMPY": "npy", b"GGUF": "gguf"}
SAFETENSORS: Final = "safetensors"


def contents_in(file: BinaryIO) -> Contents | None:
    """Return what is in an open file, None when it is not one that is known; raise OSError.

    Reads the header, wherever it lies, and in memory bounded by what is sensible for one.
    """
    file.seek(0)
    module = _module(file.read(HEAD))
    if module is None:
        return None
    size = file.seek(0, os.SEEK_END)
    try:
        if module == ZIP:
            return _archive(file, size)
        # The readers are loaded only for a file that may be theirs.
        reader = import_module(f"cas.objects.containers.{module}")
        return cast("Contents", reader.read(file, size))
    except ValueError:
        # OddError, or what a decoder of text or numbers raises: not to the last byte as it should.
        return None


def may_be_known(head: bytes) -> bool:
    """Say by its first HEAD bytes whether a file is worth a look."""
    return _module(head) is not None


def _module(head: bytes) -> str | None:
    for magic, module in MODULES.items():
        if head.startswith(magic):
            return module
    return SAFETENSORS if head[8:9] == b"{" else None


def _archive(file: BinaryIO, size: int) -> Contents:
    from cas.objects.containers import npz, torchzip, zips

    found = zips.members(file, size)
    if not found:
        raise OddError("an empty archive")
    if all(member.name.endswith(npz.SUFFIX) for member in found):
        return npz.read(file, size, found)
    return torchzip.read(file, size, found)
