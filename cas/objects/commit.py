"""Commits: a run, a checkpoint of one, an input, or a person's commit, and what it came from.

A commit names its record (`tree`), what is heavy (`payload`), and its parents: history and lineage
are the same edges. Light to import, because `log` reads many of them and nothing else.

Format: docs/format/commit.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from cas.errors import CorruptionError, InvalidInputError, UnsupportedError
from cas.ids import Buffer, CommitId, ObjectId, TreeId, commit_id
from cas.objects import canonical
from cas.objects.canonical import Value
from cas.objects.fields import Fields

VERSION = 1

# The roles that cas gives itself; a user may give any other lower-case word.
PREVIOUS = "previous"
RESUMED_FROM = "resumed-from"
BASE_MODEL = "base-model"
DATASET = "dataset"
EVALUATES = "evaluates"
REPRODUCES = "reproduces"
VARIANT_OF = "variant-of"

RUN = "run"
CHECKPOINT = "checkpoint"
DRAFT = "draft"
INPUT = "input"
COMMIT = "commit"
VERDICT = "verdict"
KINDS = frozenset({RUN, CHECKPOINT, DRAFT, INPUT, COMMIT, VERDICT})

MODES = frozenset({"min", "max"})
MAX_ROLE = 64
RUN_UID_SIZE = 16
ROLE = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
LISTS = frozenset({list})
# What an input never says: equal data is one commit for every run and host.
TIMELESS = ("experiment", "run", "step", "status", "time", "author", "monitor", "volume", "journal")


@dataclass(frozen=True, slots=True)
class Parent:
    """An edge to a commit that this one was made from; `path` is the part of it that was used."""

    role: str
    commit: CommitId
    path: str = ""
    attrs: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.role) > MAX_ROLE or not ROLE.fullmatch(self.role):
            raise InvalidInputError(
                f"a role is lower-case words joined by hyphens, not {self.role!r}"
            )

    def to_row(self) -> list[Value]:
        """Return the parent as it stands in a commit."""
        return [self.role, bytes(self.commit), self.path, dict(self.attrs)]


@dataclass(frozen=True, slots=True)
class Monitor:
    """The metric that says which checkpoint of a run is best, and its value at this one."""

    metric: str
    mode: str
    value: float

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidInputError(f"a monitor's mode is 'min' or 'max', not {self.mode!r}")
        if type(self.value) is not float:
            raise InvalidInputError(f"a monitor's value is a float, not {self.value!r}")

    def to_map(self) -> dict[str, Value]:
        """Return the monitor as it stands in a commit."""
        return {"metric": self.metric, "mode": self.mode, "value": self.value}


@dataclass(frozen=True, slots=True)
class Volume:
    """What a commit holds and what it cost: logical bytes, and bytes newly written for it."""

    given_bytes: int
    stored_bytes: int

    def __post_init__(self) -> None:
        if self.given_bytes < 0 or self.stored_bytes < 0:
            raise InvalidInputError("a commit's byte counts are not negative")

    def to_row(self) -> list[Value]:
        """Return the counts as they stand in a commit."""
        return [self.given_bytes, self.stored_bytes]


@dataclass(frozen=True, slots=True)
class JournalPosition:
    """How far into a run's journal a commit reaches."""

    run: bytes
    position: int

    def __post_init__(self) -> None:
        if len(self.run) != RUN_UID_SIZE:
            raise InvalidInputError(f"a run's uid is {RUN_UID_SIZE} bytes, not {len(self.run)}")
        if self.position < 0:
            raise InvalidInputError("a journal position is not negative")

    def to_row(self) -> list[Value]:
        """Return the position as it stands in a commit."""
        return [self.run, self.position]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One node of the lineage graph; `time` is in microseconds since the epoch, UTC."""

    kind: str
    tree: TreeId
    payload: TreeId | None = None
    parents: tuple[Parent, ...] = ()
    experiment: str | None = None
    run: str | None = None
    seq: int = 0
    step: int | None = None
    status: str | None = None
    time: int | None = None
    author: str | None = None
    message: str = ""
    monitor: Monitor | None = None
    volume: Volume | None = None
    journal: JournalPosition | None = None
    extra: Mapping[str, Value] = field(default_factory=dict)

    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"v", "kind", "tree", "payload", "parents", "experiment", "run", "seq", "step"}
        | {"status", "time", "author", "message", "monitor", "bytes", "journal", "extra"}
    )

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInputError(f"a commit's kind is one of {sorted(KINDS)}, not {self.kind!r}")
        if self.seq < 0:
            raise InvalidInputError("a commit's seq is not negative")
        if self.kind == INPUT:
            told = [name for name in TIMELESS if getattr(self, name) is not None]
            if told or self.seq:
                raise InvalidInputError(
                    f"an input is timeless: it has no {', '.join(told) or 'seq'}"
                )

    @property
    def id(self) -> CommitId:
        """The id of this commit."""
        return commit_id(self.to_bytes())

    @property
    def full_name(self) -> str | None:
        """The run's name with its experiment, as people write it."""
        return None if self.run is None else f"{self.experiment}/{self.run}"

    def parents_of(self, role: str) -> tuple[Parent, ...]:
        """Return the parents with this role, in stored order."""
        return tuple(parent for parent in self.parents if parent.role == role)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.encode(
            {
                "v": VERSION,
                "kind": self.kind,
                "tree": bytes(self.tree),
                "payload": None if self.payload is None else bytes(self.payload),
                "parents": [parent.to_row() for parent in self.parents],
                "experiment": self.experiment,
                "run": self.run,
                "seq": self.seq,
                "step": self.step,
                "status": self.status,
                "time": self.time,
                "author": self.author,
                "message": self.message,
                "monitor": None if self.monitor is None else self.monitor.to_map(),
                "bytes": None if self.volume is None else self.volume.to_row(),
                "journal": None if self.journal is None else self.journal.to_row(),
                "extra": dict(self.extra),
            }
        )

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read a commit; raise CorruptionError or UnsupportedError."""
        fields = Fields("commit", raw, VERSION)
        fields.expect(cls.FIELDS)
        kind = fields.take("kind", str)
        if kind not in KINDS:
            raise UnsupportedError(f"commit kind {kind!r} is not known to this cas")
        payload = fields.maybe("payload", bytes)
        try:
            return cls(
                kind=kind,
                tree=TreeId(ObjectId(fields.take("tree", bytes))),
                payload=None if payload is None else TreeId(ObjectId(payload)),
                parents=tuple(map(_parent, fields.column("parents", LISTS))),
                experiment=fields.maybe("experiment", str),
                run=fields.maybe("run", str),
                seq=fields.take("seq", int),
                step=fields.maybe("step", int),
                status=fields.maybe("status", str),
                time=fields.maybe("time", int),
                author=fields.maybe("author", str),
                message=fields.take("message", str),
                monitor=_monitor(fields.maybe("monitor", dict)),
                volume=_volume(fields.maybe("bytes", list)),
                journal=_journal(fields.maybe("journal", list)),
                extra=fields.take("extra", dict),
            )
        except InvalidInputError as error:
            raise CorruptionError(f"commit: {error}") from error


def _shaped(row: list[Any], *kinds: type) -> bool:
    return [type(item) for item in row] == list(kinds)


def _parent(row: list[Any]) -> Parent:
    if not _shaped(row, str, bytes, str, dict):
        raise CorruptionError("commit: a parent is not role, id, path, attributes")
    role, commit, path, attrs = row
    return Parent(role, CommitId(ObjectId(commit)), path, attrs)


def _monitor(value: dict[str, Any] | None) -> Monitor | None:
    if value is None:
        return None
    if value.keys() != {"metric", "mode", "value"}:
        raise CorruptionError("commit: monitor has missing or unknown fields")
    row = [value["metric"], value["mode"], value["value"]]
    if not _shaped(row, str, str, float):
        raise CorruptionError("commit: monitor is not metric, mode, value")
    return Monitor(*row)


def _volume(row: list[Any] | None) -> Volume | None:
    if row is None:
        return None
    if not _shaped(row, int, int):
        raise CorruptionError("commit: bytes is not two integers")
    return Volume(*row)


def _journal(row: list[Any] | None) -> JournalPosition | None:
    if row is None:
        return None
    if not _shaped(row, bytes, int):
        raise CorruptionError("commit: journal is not a run's uid and a position")
    return JournalPosition(*row)
