"""Roots: numbered records of all that changes, and the only place where anything changes.

A root states the live packs, the condemned ones, the tombstones and the refs, mostly as an
immutable snapshot plus the changes since. It is created under the next number and never
overwritten: whoever creates a number first has published, everyone else reads again.
Format: docs/format/root.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isqrt
from struct import Struct
from typing import Any, ClassVar, Generic, Self, TypeVar

from cas.backend.base import Backend, Span
from cas.errors import ConflictError, CorruptionError, NotFoundError, UnsupportedError
from cas.ids import Buffer, CommitId, ObjectId, digest
from cas.objects import canonical
from cas.repo.layout import ROOTS, root_key, root_number, snapshot_key
from cas.repo.refs import NOTHING, Refs, RefTable
from cas.store.pack import PackClass, PackInfo
from cas.store.record import check_version

ROOT_MAGIC = b"CASO"
SNAPSHOT_MAGIC = b"CASS"
VERSION = 1
ENVELOPE = Struct("<4s B 3x I 32s")
CHANGES_LIMIT = 1000
FEW_CHANGES = 64
FIRST_PREVIOUS = b"\0" * 32
CLASSES = {int(kind): kind for kind in PackClass}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RefChange:
    """One ref that an operation moved; None stands for absent."""

    name: str
    old: CommitId | None
    new: CommitId | None


@dataclass(frozen=True, slots=True)
class Operation:
    """Who did what and when; `id` tells a writer its own root from another's.

    `run` is the run that did it by itself; what a person's command did has none.
    """

    id: bytes
    who: str
    what: str
    time: int
    run: str = ""

    ID_SIZE: ClassVar[int] = 16


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """A reference to an immutable file of refs or packs, and what the file holds."""

    name: bytes
    check: bytes
    value: T = field(compare=False, repr=False)


Packs = tuple[PackInfo, ...]


@dataclass(frozen=True, slots=True)
class Root:
    """The state of a repository after one operation."""

    seq: int
    previous: bytes
    operation: Operation
    changes: tuple[RefChange, ...] = ()
    packs: tuple[PackInfo, ...] = ()
    condemned: tuple[PackInfo, ...] = ()
    tombstones: Mapping[ObjectId, str] = field(default_factory=dict)
    refs: Mapping[str, CommitId] = field(default_factory=dict)
    refs_base: Snapshot[RefTable] | None = None
    packs_base: Snapshot[Packs] | None = None
    check: bytes = b""

    def listed(self, name: bytes) -> bool:
        """Say whether this root lists the pack with this name."""
        return any(info.name == name for info in self.packs)

    def follow(
        self,
        operation: Operation,
        changes: Iterable[RefChange] = (),
        *,
        packs: tuple[PackInfo, ...] | None = None,
        condemned: tuple[PackInfo, ...] | None = None,
    ) -> "Root":
        """Return the root that comes after this one."""
        moved = tuple(changes)
        refs = Refs.against(_table(self.refs_base), self.refs)
        return replace(
            self,
            seq=self.seq + 1,
            previous=self.check,
            operation=operation,
            changes=moved,
            packs=self.packs if packs is None else packs,
            condemned=self.condemned if condemned is None else condemned,
            refs=refs.after((change.name, change.new) for change in moved),
            check=b"",
        )


def envelope(magic: bytes, body: bytes) -> bytes:
    """Return a body with magic, version, length and digest in front."""
    return ENVELOPE.pack(magic, VERSION, len(body), digest(body)) + body


def opened(raw: Buffer, magic: bytes, what: str) -> tuple[bytes, bytes]:
    """Return the body and its digest; raise CorruptionError or UnsupportedError."""
    if len(raw) < ENVELOPE.size:
        raise CorruptionError(f"{what} is cut short at {len(raw)} bytes")
    found, version, length, check = ENVELOPE.unpack_from(raw)
    if found != magic:
        raise CorruptionError(f"{what} starts with {found!r}")
    check_version(what, version, VERSION)
    body = bytes(raw[ENVELOPE.size :])
    if len(body) != length or digest(body) != check:
        raise CorruptionError(f"{what} does not match its digest")
    return body, check


@dataclass(frozen=True, slots=True)
class RootFile:
    """A root as it stands on disk: snapshots by name, and the changes since them."""

    raw: Mapping[str, Any]
    check: bytes

    def to_bytes(self) -> bytes:
        """Return the root file."""
        return envelope(ROOT_MAGIC, canonical.encode(dict(self.raw)))

    @classmethod
    def from_bytes(cls, raw: Buffer, what: str = "a root") -> Self:
        """Read a root file; raise CorruptionError or UnsupportedError."""
        body, check = opened(raw, ROOT_MAGIC, what)
        value = canonical.decode(body)
        if not isinstance(value, dict) or value.get("v") != 1:
            raise UnsupportedError("a root of another format version")
        return cls(value, check)

    @property
    def operation(self) -> Operation:
        """What made this root."""
        id, who, what, time = self.raw["operation"]
        return Operation(id, who, what, time, self.raw.get("run", ""))

    @property
    def changes(self) -> tuple[RefChange, ...]:
        """The refs that the operation moved."""
        return tuple(RefChange(n, _maybe(old), _maybe(new)) for n, old, new in self.raw["changes"])


def publish(backend: Backend, root: Root, new_name: bytes) -> Root:
    """Create `root` under its number; raise ConflictError when the number is taken."""
    before = (root.refs_base, root.packs_base)
    root = _with_snapshots(backend, root, new_name)
    data = RootFile(_plain(root), b"").to_bytes()
    try:
        backend.put_new(root_key(root.seq), data)
    except ConflictError:
        # Somebody else was first: nothing will ever name the snapshots of this one.
        for base in {root.refs_base, root.packs_base}.difference(before):
            if base is not None:
                backend.delete(snapshot_key(base.name))
        raise
    return replace(root, check=opened(data, ROOT_MAGIC, "a root")[1])


def read(backend: Backend, seq: int, known: Root | None = None) -> Root:
    """Return the root with this number; raise NotFoundError or CorruptionError.

    The snapshots that `known` has too are not read again.
    """
    file = read_file(backend, seq)
    try:
        root = _root(backend, file, known)
    except NotFoundError as error:
        raise CorruptionError(f"root {seq} names {error.name}, which is gone") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CorruptionError(f"root {seq} does not have the fields of a root") from error
    if root.seq != seq:
        raise CorruptionError(f"root {seq} calls itself {root.seq}")
    return root


def read_file(backend: Backend, seq: int) -> RootFile:
    """Return a root without the snapshots that it names; the same errors."""
    (raw,) = backend.read(root_key(seq), [Span(0, None)])
    return RootFile.from_bytes(raw, f"root {seq}")


def newest(backend: Backend, hint: int, known: Root | None = None) -> Root:
    """Return the newest root, probing on from `hint`; a listing only helps to find a start.

    `known` is one that was read before: as long as it is the newest, it is not read again.
    """
    there = known is not None and exists(backend, known.seq)
    found = known if known and there else _start(backend, hint)
    seq = found.seq
    while exists(backend, seq + 1):
        seq += 1
    return found if seq == found.seq else read(backend, seq, found)


def exists(backend: Backend, seq: int) -> bool:
    """Say whether a root with this number has been created."""
    try:
        backend.read(root_key(seq), [Span(0, 1)])
    except NotFoundError:
        return False
    return True


def numbers(backend: Backend) -> Iterator[int]:
    """Yield the numbers of the roots that there are, in order."""
    for info in backend.scan(ROOTS):
        seq = root_number(info.key)
        if seq is not None:
            yield seq


def _start(backend: Backend, hint: int) -> Root:
    if hint > 0:
        with suppress(NotFoundError):
            return read(backend, hint)
    seq = max(numbers(backend), default=None)
    if seq is None:
        raise CorruptionError("the repository has no root: restore it, or look with fsck")
    return read(backend, seq)


def _with_snapshots(backend: Backend, root: Root, new_name: bytes) -> Root:
    """Write a new snapshot for what has moved away too far from its last one."""
    refs_base, packs_base = root.refs_base, root.packs_base
    refs = Refs.against(_table(refs_base), root.refs)
    if _are_many(len(refs.moved), len(refs)):
        table, name = RefTable.of(refs), digest(new_name, b"refs", size=16)
        raw = {"names": list(table.names), "ids": table.ids}
        refs_base = _write_snapshot(backend, name, raw, table)
        refs = Refs.against(table, refs)
    listed = {info.name for info in packs_base.value} if packs_base else set()
    if _are_many(len(listed ^ {info.name for info in root.packs}), len(root.packs)):
        name, value = digest(new_name, b"packs", size=16), _columns(root.packs)
        packs_base = _write_snapshot(backend, name, value, root.packs)
    return replace(root, refs=refs, refs_base=refs_base, packs_base=packs_base)


def _are_many(changes: int, total: int) -> bool:
    """Say whether a snapshot is due.

    Every root repeats the changes since the last one. With the square root, what is written for
    roots and for snapshots is about the same; with a fixed number the roots of one long run
    would take more room than its records.
    """
    return changes > min(CHANGES_LIMIT, max(FEW_CHANGES, isqrt(2 * total)))


def _write_snapshot(backend: Backend, name: bytes, raw: dict[str, Any], value: T) -> Snapshot[T]:
    data = envelope(SNAPSHOT_MAGIC, canonical.encode(raw))
    backend.put_new(snapshot_key(name), data)
    return Snapshot(name, opened(data, SNAPSHOT_MAGIC, "a snapshot")[1], value)


def _snapshot(
    backend: Backend, pair: Any, known: Snapshot[T] | None, parse: Callable[[dict[str, Any]], T]
) -> Snapshot[T] | None:
    if pair is None:
        return None
    name, check = pair
    if known is not None and (known.name, known.check) == (name, check):
        return known
    (raw,) = backend.read(snapshot_key(name), [Span(0, None)])
    body, found = opened(raw, SNAPSHOT_MAGIC, f"snapshot {name.hex()}")
    value = canonical.decode(body)
    if found != check or not isinstance(value, dict):
        raise CorruptionError(f"snapshot {name.hex()} is not the one its root names")
    return Snapshot(name, check, parse(value))


def _refs(raw: Mapping[str, Any]) -> RefTable:
    return RefTable(raw["names"], raw["ids"])


def _table(base: Snapshot[RefTable] | None) -> RefTable:
    return base.value if base else NOTHING


def _plain(root: Root) -> dict[str, Any]:
    moved = Refs.against(_table(root.refs_base), root.refs).moved
    kept = {info.name for info in root.packs}
    known = {info.name for info in root.packs_base.value} if root.packs_base else set()
    operation = root.operation
    run = {"run": operation.run} if operation.run else {}
    return run | {
        "v": 1,
        "seq": root.seq,
        "previous": root.previous,
        "operation": [operation.id, operation.who, operation.what, operation.time],
        "changes": [[c.name, _raw(c.old), _raw(c.new)] for c in root.changes],
        "refs_base": _pair(root.refs_base),
        "refs_set": {name: bytes(id) for name, id in moved.items() if id is not None},
        "refs_gone": sorted(name for name, id in moved.items() if id is None),
        "packs_base": _pair(root.packs_base),
        "packs_added": _columns(tuple(p for p in root.packs if p.name not in known)),
        "packs_gone": sorted(known - kept),
        "condemned": _columns(root.condemned),
        "tombstones": [[bytes(id), why] for id, why in sorted(root.tombstones.items())],
    }


def _root(backend: Backend, file: RootFile, known: Root | None) -> Root:
    raw = file.raw
    known_refs, known_packs = (known.refs_base, known.packs_base) if known else (None, None)
    refs_base = _snapshot(backend, raw["refs_base"], known_refs, _refs)
    packs_base = _snapshot(backend, raw["packs_base"], known_packs, _packs)
    gone = set(raw["packs_gone"])
    packs = tuple(p for p in packs_base.value if p.name not in gone) if packs_base else ()
    return Root(
        seq=raw["seq"],
        previous=raw["previous"],
        operation=file.operation,
        changes=file.changes,
        packs=packs + _packs(raw["packs_added"]),
        condemned=_packs(raw["condemned"]),
        tombstones={ObjectId(id): why for id, why in raw["tombstones"]},
        refs=_moved(_table(refs_base), raw),
        refs_base=refs_base,
        packs_base=packs_base,
        check=file.check,
    )


def _moved(table: RefTable, raw: Mapping[str, Any]) -> Refs:
    gone = [(name, None) for name in raw["refs_gone"]]
    if not all(table.get(name) for name, _ in gone):
        raise ValueError("refs that are gone and never were there")
    moved = [(name, _commit(id)) for name, id in raw["refs_set"].items()]
    return Refs(table, {}, len(table)).after([*gone, *moved])


def _columns(packs: tuple[PackInfo, ...]) -> dict[str, Any]:
    return {
        "names": b"".join(info.name for info in packs),
        "lengths": [info.length for info in packs],
        "footers": b"".join(info.footer for info in packs),
        "kinds": bytes(info.kind for info in packs),
    }


def _packs(raw: Mapping[str, Any]) -> tuple[PackInfo, ...]:
    names, footers, kinds = raw["names"], raw["footers"], raw["kinds"]
    if not len(names) // 16 == len(footers) // 32 == len(kinds) == len(raw["lengths"]):
        raise ValueError("columns of different lengths")
    if not set(map(type, raw["lengths"])) <= {int}:
        raise ValueError("lengths that are no numbers")
    return tuple(
        PackInfo(names[16 * n : 16 * n + 16], length, footers[32 * n : 32 * n + 32], CLASSES[kind])
        for n, (length, kind) in enumerate(zip(raw["lengths"], kinds, strict=True))
    )


def _pair(base: Snapshot[T] | None) -> list[bytes] | None:
    return None if base is None else [base.name, base.check]


def _commit(raw: bytes) -> CommitId:
    return CommitId(ObjectId(raw))


def _maybe(raw: bytes | None) -> CommitId | None:
    return None if raw is None else _commit(raw)


def _raw(id: CommitId | None) -> bytes | None:
    return None if id is None else bytes(id)
