"""A state through its bytes and back, with the blobs in a dict."""

from collections.abc import Sequence
from typing import Any

from cas.codec.element import Element
from cas.ids import BlobId, blob_id
from cas.objects import canonical
from cas.objects.framework import Framework
from cas.objects.manifest import State
from cas.objects.states import build_state, load_state


class Blobs:
    """Stored blobs, in the order and with the widths in which they were written."""

    def __init__(self) -> None:
        self.data: dict[BlobId, bytes] = {}
        self.written: list[tuple[BlobId, Element]] = []

    def write(self, data: memoryview, element: Element) -> BlobId:
        assert data.format == "B"
        assert data.ndim == 1
        assert data.contiguous
        id = blob_id(bytes(data))
        self.data[id] = bytes(data)
        self.written.append((id, element))
        return id

    def read(self, id: BlobId, nbytes: int) -> bytearray:
        assert len(self.data[id]) == nbytes
        return bytearray(self.data[id])


def through_bytes(value: object, frameworks: Sequence[Framework] = ()) -> Any:
    """Return what comes back when `value` was stored as canonical bytes and blobs."""
    blobs = Blobs()
    raw = build_state(value, frameworks, blobs.write).to_bytes()
    canonical.check(raw)
    return load_state(State.from_bytes(raw), frameworks, blobs.read)
