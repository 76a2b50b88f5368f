"""From a Python value to a state manifest and its blobs, and back.

Where the bytes go and come from is the caller's: a transaction that stores them, a staging buffer,
a store that reads them.

Format: docs/format/state.md.
"""

from collections.abc import Callable, Iterator, Sequence

from cas.codec.element import Element
from cas.errors import CorruptionError
from cas.ids import BlobId, blob_id
from cas.objects.canonical import Value
from cas.objects.elements import element_of
from cas.objects.framework import Framework, Memory
from cas.objects.manifest import INLINE_LIMIT, State, TensorRow
from cas.objects.pystate import Flat, flatten, unflatten

WriteBlob = Callable[[memoryview, Element], BlobId]
ReadBlob = Callable[[BlobId, int], Memory]


def build_state(value: object, frameworks: Sequence[Framework], write_blob: WriteBlob) -> State:
    """Return the state of `value`; `write_blob(data, element)` stores the tensors not kept inline.

    `element` is the number that the data is made of, which its compression goes by. Rows stand
    in the order in which the value first names them. Raises UnstorableError, with the path, before
    anything is written.
    """
    return assemble(flatten(value, frameworks), write_blob)


def assemble(flat: Flat, write_blob: WriteBlob) -> State:
    """Return the state of a value that is flattened already."""
    rows: list[TensorRow] = []
    for path, view in flat.views:
        data = view.buffer()
        inline = bytes(data) if data.nbytes <= INLINE_LIMIT else None
        id = write_blob(data, element_of(view.dtype)) if inline is None else blob_id(inline)
        rows.append(TensorRow(path, view.dtype, view.shape, id, inline))
    return State(flat.value, tuple(rows))


def load_state(state: State, frameworks: Sequence[Framework], read_blob: ReadBlob) -> object:
    """Return the Python value of `state`; `read_blob(id, nbytes)` returns memory it gives away.

    Raises CorruptionError for what contradicts the format, and UnsupportedError for a value whose
    framework is not among `frameworks`.
    """

    def make(framework: Framework, number: int, extra: tuple[str, ...]) -> object:
        if not 0 <= number < len(state.rows):
            raise CorruptionError(f"state: there is no row {number}")
        row = state.rows[number]
        data = read_blob(row.id, row.nbytes) if row.data is None else bytearray(row.data)
        if len(data) != row.nbytes:
            raise CorruptionError(f"state: {row.label} has {len(data)} bytes, not {row.nbytes}")
        return framework.tensor(row, data, extra)

    return unflatten(state.value, make, frameworks)


def members(value: Value) -> Iterator[tuple[str, Value]]:
    """Yield the keys of a dict of a state's value, and what stands at each, still in its tags.

    Raises CorruptionError for what is no dict with text as keys.
    """
    if not isinstance(value, list) or value[:1] != ["dict"] or len(value) % 2 == 0:
        raise CorruptionError("state: something else stands where a dict is expected")
    for key, item in zip(value[1::2], value[2::2], strict=True):
        if not isinstance(key, str):
            raise CorruptionError("state: a dict has a key that is no text")
        yield key, item
