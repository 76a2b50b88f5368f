"""Nested Python state in one tagged grammar, and back: exact types, exact bits, no pickle.

`flatten` gives the canonical value and a look at each tensor that it refers to by row number;
`unflatten` is its inverse. What a tensor is, the frameworks say; NumPy is always one of them.

Format: docs/format/state.md.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cas.errors import CorruptionError, UnstorableError, UnsupportedError
from cas.objects.arrays import NUMPY
from cas.objects.canonical import MAX_INT, MIN_INT, Value
from cas.objects.framework import Framework, TensorView

# One canonical array per level; below stand the arrays of leaves, around it the manifest's map.
MAX_NESTING = 60
# A list that holds itself twice, and that again, has more values than any memory.
MAX_CONTAINERS = 4 * 1024 * 1024
MAX_LABEL = 80
MAX_COLLISIONS = 1000  # of keys in one dict; those that nobody made up have hardly any
METADATA = "_metadata"
TYPING_MARK = "__orig_class__"  # what `Counter[str]()` leaves behind; it says nothing

Trail: TypeAlias = "tuple[Trail, object] | None"

_PLAIN = frozenset({type(None), bool, float, bytes})
_INT = frozenset({int})
_TAGGED = frozenset({list, dict})


@dataclass(frozen=True, slots=True)
class Flat:
    """A value as it is stored, and its tensors with their paths: row `n` is `views[n]`."""

    value: Value
    views: tuple[tuple[tuple[str | int, ...], TensorView], ...]


def flatten(value: object, frameworks: Sequence[Framework] = ()) -> Flat:
    """Return `value` in the grammar, with a look at each of its tensors; copies no tensor.

    Takes exactly the types of the grammar and those of `frameworks`. Raises UnstorableError, with
    the path, for anything else: a subclass, a cycle, nesting beyond MAX_NESTING.
    """
    flattener = _Flattener(frameworks)
    tagged = flattener.value(value, None)
    return Flat(tagged, tuple(flattener.views))


Make: TypeAlias = Callable[[Framework, int, tuple[str, ...]], object]


def unflatten(value: Value, make: Make, frameworks: Sequence[Framework] = ()) -> object:
    """Return the Python value of `value`; raise CorruptionError, or UnsupportedError for a new tag.

    `make(framework, row, extra)` returns the tensor of a row. It is called once for each, however
    often the value refers to it, so that names of the same tensor come back as one.
    """
    return _Unflattener(make, frameworks).value(value)


def tags(value: Value) -> frozenset[str]:
    """Return the tags that occur in `value`: by them a reader knows which frameworks it needs."""
    found: set[str] = set()
    level = [value]
    while level:
        arrays = [item for item in level if isinstance(item, list) and item]
        found.update(array[0] for array in arrays if isinstance(array[0], str))
        level = [item for array in arrays for item in array[1:]]
    return frozenset(found)


def readable(keys: Sequence[object]) -> str:
    """Return a path as people write it: `optimizer.state[0].exp_avg`."""
    text = "".join(
        f".{key}" if type(key) is str and key.isidentifier() else f"[{_label(key)}]" for key in keys
    )
    return text.removeprefix(".") or "the value"


def row_key(key: object) -> str | int:
    """Return a key as it stands in the path of a row."""
    if type(key) is str or (type(key) is int and MIN_INT <= key <= MAX_INT):
        return key
    return _label(key)


def _label(key: object) -> str:
    try:
        text = repr(key)
    except ValueError:  # Python writes no int of more than some thousand digits
        text = f"<{type(key).__name__} too long to write>"
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 3]}..."


def _keys(trail: Trail) -> list[object]:
    keys: list[object] = []
    while trail is not None:
        trail, key = trail
        keys.append(key)
    return keys[::-1]


class _Flattener:
    """One walk over a value; unusable after an error."""

    def __init__(self, frameworks: Sequence[Framework]) -> None:
        self.views: list[tuple[tuple[str | int, ...], TensorView]] = []
        self._frameworks = (*frameworks, NUMPY)
        self._rows: dict[Hashable, int] = {}
        self._open: set[int] = set()
        self._containers = 0
        self._in_key = False
        self._forms: dict[type, Callable[[Any, Trail], list[Value]]] = {
            list: lambda value, trail: ["list", *self._items(value, trail)],
            tuple: lambda value, trail: ["tuple", *self._items(value, trail)],
            dict: lambda value, trail: ["dict", *self._pairs(value, trail)],
            Counter: self._counter,
            OrderedDict: self._ordered,
        }

    def value(self, value: object, trail: Trail) -> Value:
        """Return `value`, which stands at `trail`, in the grammar."""
        kind = type(value)
        if kind in _PLAIN:
            return value  # type: ignore[return-value]  # its type was just looked up
        if type(value) is int:
            return value if MIN_INT <= value <= MAX_INT else ["int", _two_complement(value)]
        if type(value) is str:
            return value if value.isascii() else self._text(value, trail)
        if type(value) is complex:
            return ["complex", value.real, value.imag]
        if kind in self._forms:
            return self._container(value, trail)
        return self._foreign(value, trail)

    def _text(self, value: str, trail: Trail) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _unstorable(trail, "text with a lone surrogate: store bytes") from error
        return value

    def _container(self, value: object, trail: Trail) -> list[Value]:
        if id(value) in self._open:
            raise _unstorable(trail, f"this {type(value).__name__} contains itself")
        if len(self._open) == MAX_NESTING:
            raise _unstorable(trail, f"values nest deeper than {MAX_NESTING} levels")
        self._containers += 1
        if self._containers > MAX_CONTAINERS:
            raise _unstorable(trail, f"more than {MAX_CONTAINERS} lists, tuples and dicts")
        self._open.add(id(value))
        tagged = self._forms[type(value)](value, trail)
        self._open.discard(id(value))
        return tagged

    def _items(self, items: Sequence[object], trail: Trail) -> Sequence[Value]:
        # One look at the set of types is all that a list of a million numbers costs.
        kinds = set(map(type, items))
        if kinds <= _PLAIN or (kinds == _INT and _in_range(items)):
            return items  # type: ignore[return-value]  # their types were just looked up
        return [self.value(item, (trail, at)) for at, item in enumerate(items)]

    def _pairs(self, mapping: Mapping[object, object], trail: Trail) -> Iterator[Value]:
        for key, item in list(mapping.items()):
            yield self._key(key, trail)
            yield self.value(item, (trail, key))

    def _key(self, key: object, trail: Trail) -> Value:
        outer, self._in_key = self._in_key, True
        tagged = self.value(key, (trail, "a key"))
        self._in_key = outer
        return tagged

    def _counter(self, value: "Counter[object]", trail: Trail) -> list[Value]:
        self._expect_attributes(value, frozenset(), trail)
        return ["counter", *self._pairs(value, trail)]

    def _ordered(self, value: "OrderedDict[object, object]", trail: Trail) -> list[Value]:
        self._expect_attributes(value, frozenset({METADATA}), trail)
        pairs = self._pairs(value, trail)
        if METADATA not in vars(value):
            return ["odict", *pairs]
        return ["state_dict", self.value(vars(value)[METADATA], (trail, METADATA)), *pairs]

    def _expect_attributes(self, value: object, known: frozenset[str], trail: Trail) -> None:
        strange = sorted(vars(value).keys() - known - {TYPING_MARK})
        if strange:
            raise _unstorable(trail, f"a {type(value).__name__} with an attribute {strange[0]!r}")

    def _foreign(self, value: object, trail: Trail) -> Value:
        for framework in self._frameworks:
            view = framework.view(value)
            if view is not None:
                return self._reference(framework, view, trail)
            tagged = framework.encode(value)
            if tagged is not None:
                return tagged
        raise _unstorable(trail, self._reason(value))

    def _reference(self, framework: Framework, view: TensorView, trail: Trail) -> Value:
        if self._in_key:
            raise _unstorable(trail, "a tensor or array cannot be part of a key")
        row = self._rows.setdefault((framework.tensor_tag, view.identity), len(self.views))
        if row == len(self.views):
            self.views.append((tuple(map(row_key, _keys(trail))), view))
        return [framework.tensor_tag, row, *view.extra]

    def _reason(self, value: object) -> str:
        for framework in self._frameworks:
            reason = framework.explain(value)
            if reason is not None:
                return reason
        kind = type(value)
        for base in (*self._forms, bool, int, float, complex, str, bytes):
            if isinstance(value, base):
                return f"{kind.__qualname__} is a subclass of {base.__name__}: convert it to one"
        return (
            f"a {kind.__module__}.{kind.__qualname__} is no state: convert it to dicts, lists, "
            "numbers, text, bytes, arrays or tensors"
        )


class _Unflattener:
    """One walk over a tagged value; trusts nothing in it but that its nesting is bounded."""

    def __init__(self, make: Make, frameworks: Sequence[Framework]) -> None:
        every = (*frameworks, NUMPY)
        self._make = make
        self._makers = {framework.tensor_tag: framework for framework in every}
        self._decoders = {tag: framework for framework in every for tag in framework.tags}
        self._tensors: dict[tuple[Value, ...], object] = {}
        self._forms: dict[str, Callable[[list[Value]], object]] = {
            "list": self._items,
            "tuple": lambda args: tuple(self._items(args)),
            "dict": lambda args: self._filled({}, args),
            "odict": lambda args: self._filled(OrderedDict(), args),
            "state_dict": self._state_dict,
            "counter": lambda args: self._filled(Counter(), args),
            "int": _big_int,
            "complex": _complex,
        }

    def value(self, tagged: Value) -> object:
        """Return the Python value of `tagged`."""
        if type(tagged) is not list:
            if type(tagged) is dict:
                raise CorruptionError("state: a map stands where a value is expected")
            return tagged
        if not tagged or type(tagged[0]) is not str:
            raise CorruptionError("state: an array without a tag")
        tag, args = tagged[0], tagged[1:]
        if tag in self._forms:
            return self._forms[tag](args)
        if tag in self._makers:
            return self._tensor(tag, args)
        if tag in self._decoders:
            return self._decoders[tag].decode(tag, args)
        raise UnsupportedError(
            f"state: {tag!r} is not known here: it takes the framework it is from, or a newer cas"
        )

    def _items(self, args: list[Value]) -> list[object]:
        if _TAGGED.isdisjoint(map(type, args)):
            return list(args)
        return [self.value(item) for item in args]

    def _filled(self, empty: dict[Any, Any], args: list[Value]) -> object:
        if len(args) % 2:
            raise CorruptionError("state: a key without a value")
        keys = [self.value(key) for key in args[::2]]
        _check_hashes(keys)
        for key, item in zip(keys, args[1::2], strict=True):
            empty[key] = self.value(item)
        if len(empty) != len(args) // 2:
            raise CorruptionError("state: a key stands twice in one dict")
        return empty

    def _state_dict(self, args: list[Value]) -> object:
        if not args:
            raise CorruptionError("state: a state_dict without metadata")
        state: OrderedDict[object, object] = OrderedDict()
        vars(state)[METADATA] = self.value(args[0])
        return self._filled(state, args[1:])

    def _tensor(self, tag: str, args: list[Value]) -> object:
        row, extra = args[0] if args else None, tuple(args[1:])
        if type(row) is not int or not all(type(item) is str for item in extra):
            raise CorruptionError(f"state: {tag} names no row")
        name = (tag, row, *extra)
        if name not in self._tensors:
            self._tensors[name] = self._make(self._makers[tag], row, extra)  # type: ignore[arg-type]
        return self._tensors[name]


def _check_hashes(keys: list[object]) -> None:
    """Refuse what is no key, and keys of which so many have one hash that a dict takes for ever."""
    try:
        different = len(set(map(hash, keys)))
    except TypeError as error:
        raise CorruptionError(f"state: not a key: {error}") from error
    if len(keys) - different > MAX_COLLISIONS:
        raise CorruptionError(f"state: {len(keys)} keys of one dict have {different} hashes")


def _unstorable(trail: Trail, reason: str) -> UnstorableError:
    return UnstorableError(readable(_keys(trail)), reason)


def _in_range(items: Sequence[Any]) -> bool:
    return bool(min(items) >= MIN_INT and max(items) <= MAX_INT)


def _two_complement(value: int) -> bytes:
    """Return the shortest little-endian two's complement."""
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return value.to_bytes(size, "little", signed=True)


def _big_int(args: list[Value]) -> int:
    if len(args) != 1 or not isinstance(args[0], bytes):
        raise CorruptionError("state: int holds no bytes")
    value = int.from_bytes(args[0], "little", signed=True)
    if MIN_INT <= value <= MAX_INT or _two_complement(value) != args[0]:
        raise CorruptionError("state: int is not in its shortest form")
    return value


def _complex(args: list[Value]) -> complex:
    if len(args) != 2 or not all(type(part) is float for part in args):
        raise CorruptionError("state: complex does not hold two floats")
    real, imaginary = args
    return complex(real, imaginary)  # type: ignore[arg-type]  # both are floats
