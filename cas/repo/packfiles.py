"""The pack files of a folder, whatever roots say of them."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cas.backend.base import Backend
from cas.repo.layout import PACKS
from cas.store.pack import PackClass, PackInfo

SUFFIX: Final = ".pack"
UNREAD: Final = b"\0" * 32  # the footer of a pack that was only listed: nobody looks at it


@dataclass(frozen=True, slots=True)
class PackFile:
    """A pack file by name and size, and when it was last written, by the file system's clock."""

    info: PackInfo
    modified: float


def pack_files(backend: Backend) -> Iterator[PackFile]:
    """Yield the pack files that there are; nothing is known of their footers and classes."""
    for found in backend.scan(PACKS):
        stem = found.key.removeprefix(PACKS).removesuffix(SUFFIX)
        if found.key.endswith(SUFFIX) and len(stem) == 2 * PackInfo.NAME_SIZE:
            with suppress(ValueError):
                info = PackInfo(bytes.fromhex(stem), found.size_bytes, UNREAD, PackClass.DATA)
                yield PackFile(info, found.modified.timestamp())
