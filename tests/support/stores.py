"""A store and a writer over any backend, without a repository around them."""

from collections.abc import Iterator

from cas.backend.base import Backend
from cas.backend.memory import MemoryBackend
from cas.store.pack import PackInfo
from cas.store.packed import PackedStore
from cas.store.writer import ObjectWriter


class Shelf:
    """A backend, the packs that are listed on it, and a store that reads them."""

    def __init__(self, backend: Backend | None = None) -> None:
        self.backend: Backend = backend or MemoryBackend()
        self.packs: list[PackInfo] = []
        self.looks = 0
        self.store = PackedStore(self.backend, self._listed)
        self._names = _counted()

    def writer(self, store: PackedStore | None = None) -> ObjectWriter:
        """Return a writer whose packs have names in order."""
        return ObjectWriter(self.backend, store or self.store, lambda: next(self._names))

    def publish(self, writer: ObjectWriter) -> list[PackInfo]:
        """Seal a writer and list its packs; return the new ones."""
        fresh = [info for info in writer.seal() if info not in self.packs]
        self.packs += fresh
        self.store.refresh()
        return fresh

    def _listed(self) -> list[PackInfo]:
        self.looks += 1
        return list(self.packs)


def _counted() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield number.to_bytes(16, "big")
