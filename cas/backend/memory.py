"""A backend in memory: the reference for every promise, and what tests use."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cas.backend.base import KeyInfo, Span, check_hint, check_key, check_prefix
from cas.errors import ConflictError, CorruptionError, InvalidInputError, NotFoundError
from cas.ids import Buffer


@dataclass(frozen=True, slots=True)
class _Value:
    data: bytes
    modified: datetime


class MemoryBackend:
    """Keys and values in a dict; a sink's value can be seen once it is sealed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, _Value] = {}
        self._unsealed: dict[str, _MemorySink] = {}
        self._hints: dict[str, str] = {}

    def create(self, key: str) -> "_MemorySink":
        """Start a new value under its final name; raise ConflictError when the key is taken."""
        sink = _MemorySink(self, check_key(key))
        with self._lock:
            self._check_free(key)
            self._unsealed[key] = sink
        return sink

    def put_new(self, key: str, data: Buffer) -> None:
        """Write a whole new value, durably; raise ConflictError when the key is taken."""
        value = _Value(bytes(data), datetime.now(UTC))
        with self._lock:
            self._check_free(check_key(key))
            self._values[key] = value

    def read(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        """Return the bytes of each span; raise NotFoundError, or CorruptionError when cut short."""
        found = self._values.get(check_key(key))
        if found is None:
            raise NotFoundError("key", key)
        return [_part(key, found.data, span) for span in spans]

    def delete(self, key: str) -> None:
        """Remove the key; a missing key is no error."""
        with self._lock:
            self._values.pop(check_key(key), None)
            self._unsealed.pop(key, None)

    def scan(self, prefix: str) -> Iterator[KeyInfo]:
        """Yield the keys that start with `prefix`, in key order."""
        check_prefix(prefix)
        with self._lock:
            keys = sorted(key for key in self._values if key.startswith(prefix))
        for key in keys:
            if found := self._values.get(key):
                yield KeyInfo(key, len(found.data), found.modified)

    def sync(self, prefix: str) -> None:
        """Only check the prefix: what is here is as durable as it gets."""
        check_prefix(prefix)

    def size(self, key: str) -> int | None:
        """Return the size of the value in bytes; None when there is no such key."""
        found = self._values.get(check_key(key))
        return None if found is None else len(found.data)

    def read_hint(self, name: str) -> str | None:
        """Return the text last written under `name`, if it is still there."""
        return self._hints.get(check_hint(name))

    def write_hint(self, name: str, text: str) -> None:
        """Keep the text, replacing an older one."""
        self._hints[check_hint(name)] = text

    def _check_free(self, key: str) -> None:
        if key in self._values or key in self._unsealed:
            raise ConflictError(key)

    def _finish(self, sink: "_MemorySink", data: bytes | None) -> None:
        with self._lock:
            if self._unsealed.get(sink.key) is not sink:
                return  # deleted while it was written
            del self._unsealed[sink.key]
            if data is not None:
                self._values[sink.key] = _Value(data, datetime.now(UTC))


class _MemorySink:
    """One value on its way into a MemoryBackend."""

    def __init__(self, backend: MemoryBackend, key: str) -> None:
        self.key = key
        self._backend = backend
        self._data: bytearray | None = bytearray()

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append these buffers, in order."""
        data = self._open()
        for buffer in buffers:
            data += bytes(buffer)

    def seal(self) -> None:
        """Show the value to everybody."""
        data = self._open()
        self._data = None
        self._backend._finish(self, bytes(data))

    def discard(self) -> None:
        """Remove what was written; without effect when sealed or discarded before."""
        if self._data is not None:
            self._data = None
            self._backend._finish(self, None)

    def _open(self) -> bytearray:
        if self._data is None:
            raise InvalidInputError(
                f"{self.key} is sealed or discarded: nothing more can be written"
            )
        return self._data


def _part(key: str, data: bytes, span: Span) -> bytes:
    end = len(data) if span.length is None else span.offset + span.length
    if max(span.offset, end) > len(data):
        raise CorruptionError(
            f"{key} is cut short: {len(data)} bytes, where {max(span.offset, end)} are expected"
        )
    return data[span.offset : end]
