"""What a pickled state dict says, read as data: never unpickled, nothing in it is ever called.

`pickletools` knows how operations are written; the few that a state dict is made of are followed
here with values of our own, and anything else makes the file opaque before its argument is looked
at. A global is only its name, from an allow-list.
"""

import io
import pickletools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cas.objects.containers.found import MAX_HEADER, MAX_TENSORS, OddError, check_text

STOP: Final = "STOP"
GLOBAL: Final = "GLOBAL"
MAX_NESTING: Final = 64
MAX_OPERATIONS: Final = 3_000_000
# From so many on, none of a state dict has fewer than two bytes each; one of empty dicts does.
DENSE: Final = 500_000

# The types of storages by the names that pickles give them.
STORAGES: Final = {
    "torch FloatStorage": "float32",
    "torch DoubleStorage": "float64",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
    "torch ComplexFloatStorage": "complex64",
    "torch ComplexDoubleStorage": "complex128",
    "torch.storage UntypedStorage": "",  # its tensors say their dtype themselves
}
DTYPES: Final = {
    f"torch {name}": name
    for name in (
        *("uint16", "uint32", "uint64", "complex32", "float8_e4m3fn", "float8_e4m3fnuz"),
        *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
}
ORDERED: Final = "collections OrderedDict"
TENSOR: Final = "torch._utils _rebuild_tensor_v2"
NEW_TENSOR: Final = "torch._utils _rebuild_tensor_v3"
PARAMETER: Final = "torch._utils _rebuild_parameter"
GLOBALS: Final = {*STORAGES, *DTYPES, ORDERED, TENSOR, NEW_TENSOR, PARAMETER}


@dataclass(frozen=True, slots=True)
class Global:
    """The name of something that a pickle would have imported."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A record of the archive, and how many elements (bytes, when untyped) it holds."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A look at a storage; `plain` is false when its elements are not to be taken as they lie."""

    storage: Storage
    dtype: str
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    plain: bool


@dataclass(slots=True, eq=False)
class Box:
    """A dict, list or tuple of the pickle: what is in it, by name."""

    kind: str
    items: list[tuple[Any, Any]] = field(default_factory=list)

    def values(self) -> list[Any]:
        """Return what is in it, without the names."""
        return [value for _, value in self.items]


_MARK: Final = object()


def read(raw: bytes) -> tuple[list[tuple[str, Tensor]], list[Storage]]:
    """Return the tensors of a pickled state dict with their dotted names, and all its storages.

    A tensor comes once per name; a storage may come more than once, or be no tensor's.
    """
    machine = _Machine()
    end = -1
    try:
        for number, (name, argument, position) in enumerate(_operations(raw)):
            if number >= MAX_OPERATIONS or (number > DENSE and number * 2 > position):
                raise OddError("too many operations")
            if name == STOP:
                end = position + 1
                break
            machine.step(name, argument)
    except (ValueError, OverflowError, IndexError, KeyError, struct.error) as error:
        raise OddError(f"no pickle of a state dict: {error}") from error
    if end != len(raw) or len(machine.stack) != 1 or machine.stack[0] is _MARK:
        raise OddError("the pickle does not end where it should")
    return list(_tensors(machine.stack[0])), machine.storages


def _operations(raw: bytes) -> Iterator[tuple[str, Any, int]]:
    """Yield the operations, each with its argument and where it stands."""
    file = io.BytesIO(raw)
    while True:
        position = file.tell()
        operation = _OPERATIONS.get(file.read(1))
        if operation is None:
            raise OddError(f"no operation of a state dict at byte {position}")
        reader = _global if operation.name == GLOBAL else operation.arg and operation.arg.reader
        yield operation.name, reader and reader(file), position


def _global(file: io.BytesIO) -> str:
    """Read a global as it is written; `pickletools` would undo escapes in it, and warn of some."""
    module, name = file.readline(), file.readline()
    if not name.endswith(b"\n"):
        raise OddError("a global is cut short")
    return f"{module[:-1].decode()} {name[:-1].decode()}"


class _Machine:
    """The stack and the memo of a pickle, over values that do nothing."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: list[Storage] = []

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
            return
        if name in _BOXES:
            self.stack.append(Box(_BOXES[name]))
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
            return
        _ACTIONS[name](self, argument)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise OddError("the stack is empty")
        return self.stack.pop()

    def top(self, kind: str) -> Box:
        if not self.stack or not isinstance(self.stack[-1], Box) or self.stack[-1].kind != kind:
            raise OddError(f"no {kind} to add to")
        box: Box = self.stack[-1]
        return box

    def since_mark(self) -> list[Any]:
        taken: list[Any] = []
        while self.stack and self.stack[-1] is not _MARK:
            taken.append(self.stack.pop())
        if not self.stack:
            raise OddError("no mark on the stack")
        self.stack.pop()
        return taken[::-1]

    def put(self, number: Any) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise OddError("nothing to remember")
        self.memo[number] = self.stack[-1]

    def get(self, number: Any) -> None:
        self.stack.append(self.memo[number])

    def name(self, argument: Any) -> None:
        if argument not in GLOBALS:
            raise OddError(f"global {argument!r}")
        self.stack.append(Global(argument))

    def tuple(self, values: list[Any]) -> None:
        self.stack.append(Box("tuple", list(enumerate(values))))

    def add_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise OddError("a key without a value")
        self.top("dict").items.extend(zip(values[::2], values[1::2], strict=True))

    def append(self, values: list[Any]) -> None:
        box = self.top("list")
        box.items.extend(enumerate(values, len(box.items)))

    def persistent(self) -> None:
        match _values(self.pop(), "tuple"):
            case ["storage", Global(kind), str(key), str(), int(count)] if kind in STORAGES:
                if type(count) is not int or count < 0:
                    raise OddError("a storage of a size that cannot be")
                storage = Storage(key, STORAGES[kind], count)
                self.storages.append(storage)
                self.stack.append(storage)
            case _:
                raise OddError("a persistent id that is no storage")

    def reduce(self) -> None:
        arguments = _values(self.pop(), "tuple")
        called = self.pop()
        match called, arguments:
            case Global(name=name), [] if name == ORDERED:
                self.stack.append(Box("dict"))
            case Global(name=name), [Tensor() as tensor, bool(), Box()] if name == PARAMETER:
                self.stack.append(tensor)
            case Global(name=name), [Storage(), *_] if name in {TENSOR, NEW_TENSOR}:
                self.stack.append(_rebuilt(name, arguments))
            case _:
                raise OddError("a call that no state dict makes")

    def build(self) -> None:
        # The attributes of an ordered dict (its `_metadata`): nothing of them is a tensor.
        self.pop()
        self.top("dict")


_VALUES: Final = frozenset({"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"})
_BOXES: Final = {"EMPTY_DICT": "dict", "EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple"}
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}


def _popped(machine: _Machine, count: int) -> list[Any]:
    return [machine.pop() for _ in range(count)][::-1]


def _protocol(machine: _Machine, argument: Any) -> None:
    if argument != 2 or machine.stack:
        raise OddError(f"pickle protocol {argument}")


_ACTIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "PROTO": _protocol,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    GLOBAL: _Machine.name,
    "TUPLE": lambda machine, _: machine.tuple(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.tuple(_popped(machine, 1)),
    "TUPLE2": lambda machine, _: machine.tuple(_popped(machine, 2)),
    "TUPLE3": lambda machine, _: machine.tuple(_popped(machine, 3)),
    "SETITEM": lambda machine, _: machine.add_items(_popped(machine, 2)),
    "SETITEMS": lambda machine, _: machine.add_items(machine.since_mark()),
    "APPEND": lambda machine, _: machine.append(_popped(machine, 1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "BINPERSID": lambda machine, _: machine.persistent(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}
_KNOWN: Final = {STOP} | _VALUES | _BOXES.keys() | _CONSTANTS.keys() | _ACTIONS.keys()
_OPERATIONS: Final = {
    operation.code.encode("latin-1"): operation
    for operation in pickletools.opcodes
    if operation.name in _KNOWN
}


def _rebuilt(name: str, arguments: list[Any]) -> Tensor:
    """Return the tensor of `_rebuild_tensor_v2(storage, start, shape, strides, grad, hooks, …)`."""
    match arguments:
        case [
            Storage() as storage,
            int(start),
            Box() as size,
            Box() as steps,
            bool(),
            Box(),
            *rest,
        ]:
            shape, strides = _naturals(size), _naturals(steps)
        case _:
            raise OddError("a tensor with other arguments")
    dtype = storage.dtype
    if name == NEW_TENSOR:
        if not rest or not isinstance(rest[0], Global) or rest[0].name not in DTYPES:
            raise OddError("a tensor without its dtype")
        dtype = DTYPES[rest.pop(0).name]
    if not dtype or bool(storage.dtype) == (name == NEW_TENSOR) or len(rest) > 1 or start < 0:
        raise OddError("a tensor with other arguments")
    if len(shape) != len(strides):
        raise OddError("a tensor with strides of another number")
    # What follows are flags (conjugated, negated): such bytes are not the tensor's values.
    return Tensor(storage, dtype, start, shape, strides, plain=not rest)


def _values(value: Any, kind: str) -> list[Any]:
    if not isinstance(value, Box) or value.kind != kind:
        raise OddError(f"no {kind} where one must be")
    return value.values()


def _naturals(box: Box) -> tuple[int, ...]:
    values = _values(box, "tuple")
    if not all(type(value) is int and 0 <= value < 2**63 for value in values):
        raise OddError("a shape or strides of something else than whole numbers")
    return tuple(values)


def _tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors below a value; what stands in several places is entered once."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), root)]
    entered: set[int] = set()
    count = length = 0
    while pending:
        path, value = pending.pop()
        if isinstance(value, Tensor):
            name = ".".join(path)
            count, length = count + 1, length + len(name)
            if count > MAX_TENSORS or length > MAX_HEADER:
                raise OddError("too many tensors, or too long names")
            yield name, value
        elif isinstance(value, Box) and id(value) not in entered:
            entered.add(id(value))
            if len(path) >= MAX_NESTING:
                raise OddError("nested too deep")
            below = [((*path, _key(key)), item) for key, item in value.items if _holds(item)]
            pending.extend(reversed(below))


def _holds(value: Any) -> bool:
    return isinstance(value, Box | Tensor)


def _key(key: Any) -> str:
    if type(key) is int:
        return str(key)
    return check_text(key)
