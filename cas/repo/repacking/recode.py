"""New records of stored pieces: as a delta, or whole again. Nothing is written here.

Runs on any thread. What is returned has been decoded and compared.
"""

from collections.abc import Iterable

from cas.codec.element import Element
from cas.codec.steps import Form as Steps
from cas.ids import BlobId, ObjectId
from cas.objects.kind import Kind
from cas.repo.repacking.forms import Option
from cas.store.encoding import Base, Record, encode, encode_delta
from cas.store.packed import PackedStore
from cas.store.record import RecordHeader


def as_delta(
    store: PackedStore,
    id: BlobId,
    element: Element,
    options: Iterable[Option],
    *,
    thorough: bool = False,
) -> Record | None:
    """Return a piece as a delta against the first base that will do; None when none will.

    With `thorough`, one that takes twice as long to read counts as better where it is smaller.
    """
    data = store.whole(id)
    for option in options:
        base = option.base
        whole, place = store.whole(base.id), store.locate(base.id)
        if place is None or place.row.depth > base.depth:
            continue  # the record that was counted on is damaged, and the next one is too deep
        against = Base(base.id, whole, base.depth)
        record = encode_delta(id, data, against, element, thorough=thorough)
        if record is not None and record.header.stored <= option.most:
            return record
    return None


def as_whole(store: PackedStore, id: BlobId, element: Element) -> Record:
    """Return a piece as a record that needs no other."""
    return encode(Kind.BLOB, id, store.whole(id), element)


def element_in(body: memoryview) -> Element:
    """Return what the numbers of a delta are, by its body; raise CorruptionError."""
    steps = Steps.from_bytes(body[ObjectId.SIZE :])
    return Element(steps.width, floating=steps.floating)


def length(record: Record) -> int:
    """Return the bytes that a record takes in a pack."""
    return RecordHeader.SIZE + record.header.stored
