"""The tensors of a state by name: each place where its value refers to one.

Rows know one path each; a tensor that stands in several places has them all here.
Format: docs/format/state.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cas.errors import AmbiguousError, CasError, CorruptionError, NotFoundError
from cas.objects.canonical import Value
from cas.objects.framework import Framework
from cas.objects.manifest import State, TensorRow
from cas.objects.pystate import METADATA, readable, row_key, unflatten

TENSORS: Final = frozenset({"tensor", "ndarray"})  # tags that a row number follows
ITEMS: Final = frozenset({"list", "tuple"})
PAIRS: Final = frozenset({"dict", "odict", "counter"})
COMPARED: Final = 20_000  # names among which a near one is looked for
SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor at one place of a state; `alone` is the state that is nothing but this tensor."""

    path: tuple[str | int, ...]
    row: TensorRow
    alone: State

    @property
    def label(self) -> str:
        """The path with dots, as state dicts write it."""
        return ".".join(map(str, self.path)) or "tensor"


def named_tensors(state: State) -> Iterator[NamedTensor]:
    """Yield every place of a tensor in a state, in the order of its value."""
    return _walk(state, state.value, ())


def pick(found: Iterable[NamedTensor], name: str) -> NamedTensor:
    """Return the tensor with this name: as `cas ls` prints it, which comes first, or with dots.

    Raises NotFoundError with what is near, or AmbiguousError.
    """
    known = list(found)
    exact = [one for one in known if readable(one.path) == name]
    exact = exact or [one for one in known if one.label == name]
    if not exact:
        raise NotFoundError("tensor", name, near(name, [one.label for one in known]))
    if any(one.alone != exact[0].alone for one in exact):
        raise AmbiguousError(name, sorted(readable(one.path) for one in exact))
    return exact[0]


def near(name: str, known: list[str]) -> str:
    """Return what may have been meant instead of a name that there is not."""
    from difflib import get_close_matches

    inside = [one for one in known if one.endswith(f".{name}")]
    inside = inside or [one for one in known if one.startswith(f"{name}.")]
    close = inside or get_close_matches(name, known[:COMPARED], n=SHOWN)
    if close:
        return f"did you mean {' or '.join(close[:SHOWN])}?"
    if len(known) == 1:
        return f"the only one is {known[0]}" if known[0] else "the only one has no name"
    return f"there are {len(known)} others: `cas ls` lists them" if known else "there are none"


def _walk(state: State, value: Value, path: tuple[str | int, ...]) -> Iterator[NamedTensor]:
    if not isinstance(value, list) or not value:
        return
    tag, *args = value
    if tag in TENSORS:
        yield _named(state, str(tag), args, path)
        return
    for key, item in _inside(tag, args):
        if isinstance(item, list):
            yield from _walk(state, item, (*path, row_key(_key(key))))


def _inside(tag: Value, args: list[Value]) -> Iterator[tuple[Value, Value]]:
    if tag in ITEMS:
        yield from enumerate(args)
    elif tag in PAIRS:
        yield from zip(args[::2], args[1::2], strict=False)
    elif tag == "state_dict":
        yield from zip((METADATA, *args[1::2]), (*args[:1], *args[2::2]), strict=False)


def _named(state: State, tag: str, args: list[Value], path: tuple[str | int, ...]) -> NamedTensor:
    number = args[0] if args else None
    if type(number) is not int or not 0 <= number < len(state.rows):
        raise CorruptionError(f"state: {tag} names no row")
    row = state.rows[number]
    return NamedTensor(path, row, State([tag, 0, *args[1:]], (row,)))


def _key(key: Value) -> object:
    """Return a key as Python has it; what takes a framework to know stays as it is stored."""
    try:
        return unflatten(key, _refused)
    except CasError:
        return str(key)


def _refused(framework: Framework, row: int, extra: tuple[str, ...]) -> object:
    raise CorruptionError("state: a tensor is part of a key")
