"""Which tensors a file holds and where, for the kinds of files that are known.

Recognised by content, never by name: safetensors, .npy, torch.save. Headers are parsed strictly and
without executing anything; a file with anything odd about it is opaque bytes, which is no error.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Final

from cas.objects.containers.found import FoundTensor

__all__ = ["FoundTensor", "format_of", "tensors", "tensors_in"]

SAFETENSORS: Final = "safetensors"
NPY: Final = "npy"
TORCH: Final = "torch.save"
HEAD: Final = 16
MODULES: Final = {SAFETENSORS: "safetensors", NPY: "npy", TORCH: "torchzip"}


def tensors(path: Path) -> list[FoundTensor] | None:
    """Return the tensors of a file, None when it is not one that is known; raise OSError."""
    with path.open("rb") as file:
        return tensors_in(file)


def tensors_in(file: BinaryIO) -> list[FoundTensor] | None:
    """Return the tensors of an open file, None when it is not one that is known."""
    kind = format_of(file)
    if kind is None:
        return None
    size = file.seek(0, os.SEEK_END)
    try:
        # The readers are loaded only for a file that may be theirs.
        found: list[FoundTensor] = import_module(f"cas.objects.containers.{MODULES[kind]}").read(
            file, size
        )
    except ValueError:
        # OddError, or what a decoder of text or numbers raises: not to the last byte as it should.
        return None
    return found


def format_of(file: BinaryIO) -> str | None:
    """Return which kind of file this seems to be by its first bytes."""
    file.seek(0)
    head = file.read(HEAD)
    if head.startswith(b"PK\x03\x04"):
        return TORCH
    if head.startswith(b"\x93NUMPY"):
        return NPY
    return SAFETENSORS if len(head) > 9 and head[8:9] == b"{" else None
