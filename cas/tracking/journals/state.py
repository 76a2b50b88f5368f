"""What is known of a run, as its journal tells it.

Every change of a run is one frame, a map with a type `t`; `apply` is the only way in. So a run that
died is rebuilt from its journal by the same code that served it while it lived.
Format: docs/format/journal.md.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cas.errors import CasError, CorruptionError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import Parent
from cas.objects.tree import Entry, EntryKind
from cas.repo.layout import OPEN, RUNS
from cas.tracking.numbers.metrics import MetricLog
from cas.tracking.shown.logged import Tracks
from cas.tracking.shown.shelf import Shelf
from cas.tracking.watching.events import as_event


@dataclass(slots=True)
class RunState:
    """A run so far: the journal's frames, applied in order."""

    run: str
    ref: str
    uid: bytes
    params: dict[str, Any] = field(default_factory=dict)
    metrics: MetricLog = field(default_factory=MetricLog)
    system: MetricLog = field(default_factory=lambda: MetricLog("system"))  # at microseconds
    events: list[dict[str, Any]] = field(default_factory=list)
    parents: list[Parent] = field(default_factory=list)
    artifacts: dict[str, Entry] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    redacted: dict[str, dict[str, int]] = field(default_factory=dict)  # by place, then by kind
    logged: Tracks = field(default_factory=Tracks)
    shelf: Shelf = field(default_factory=Shelf)  # the files in it, as the draft holds them
    tip: CommitId | None = None
    seq: int = 0
    position: int = 0
    status: str | None = None
    chosen: tuple[str | None, str | None] = (None, None)  # metric and mode that the user monitors

    def apply(self, frame: Mapping[str, Any]) -> None:
        """Take one frame; a type that this version does not know is passed over.

        What another thread may be reading is never changed, but replaced.
        """
        match frame["t"]:
            case "params":
                self.params = self.params | frame["params"]
            case "points" | "system":
                self.metrics.replay([frame])
                self.system.replay([frame])
            case "parent":
                self._add_parent(frame)
            case "artifact":
                path, entry = named_entry(frame)
                self.artifacts = {**self.artifacts, path: entry}
            case "logged":
                self.logged.replay(frame)
            case _:
                self._add_said(frame)
                self._go_on(frame)

    def _add_said(self, frame: Mapping[str, Any]) -> None:
        """Take a frame that says something of the run as a whole."""
        match frame["t"]:
            case "event":
                self.events = [*self.events, as_event(frame).document()]
            case "metadata":
                self.metadata = self.metadata | frame["metadata"]
            case "redacted":
                self._add_redacted(frame["where"], frame["kinds"])

    def _go_on(self, frame: Mapping[str, Any]) -> None:
        """Take a frame that says how far the run is."""
        match frame["t"]:
            case "commit":
                self.tip, self.seq = CommitId(ObjectId(frame["commit"])), frame["seq"]
            case "moved":
                self.run, self.ref = frame["run"], frame["ref"]
            case "finish":
                self.status = frame["status"]

    def _add_redacted(self, where: str, kinds: Mapping[str, int]) -> None:
        known = dict(self.redacted.get(where, {}))
        for kind, count in kinds.items():
            if type(kind) is not str or type(count) is not int or count < 1:
                raise ValueError(f"{count!r} secrets of kind {kind!r}")
            known[kind] = known.get(kind, 0) + count
        self.redacted = self.redacted | {where: known}

    def _add_parent(self, frame: Mapping[str, Any]) -> None:
        commit = CommitId(ObjectId(frame["commit"]))
        parent = Parent(frame["role"], commit, frame["path"], frame["attrs"])
        if parent not in self.parents:
            self.parents = [*self.parents, parent]

    def replay(self, frames: Iterable[Any]) -> None:
        """Take the frames of a journal; raise CorruptionError for one that makes no sense."""
        for frame in frames:
            try:
                self.apply(frame)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                reason = error if isinstance(error, CasError) else repr(error)
                raise CorruptionError(f"journal of {self.run}: damaged frame: {reason}") from error

    def frames(self) -> list[dict[str, Any]]:
        """Return frames that tell all but the metrics to a new state of this run and ref."""
        found: list[dict[str, Any]] = []
        if self.params:
            found.append({"t": "params", "params": self.params})
        found += [parent_frame(parent) for parent in self.parents]
        found += [artifact_frame(path, entry) for path, entry in self.artifacts.items()]
        found += [{"t": "event", **event} for event in self.events]
        if self.metadata:
            found.append({"t": "metadata", "metadata": self.metadata})
        found += [redacted_frame(where, kinds) for where, kinds in self.redacted.items()]
        found += self.logged.frames()
        if self.tip is not None:
            found.append({"t": "commit", "commit": bytes(self.tip), "seq": self.seq})
        if self.status is not None:
            found.append({"t": "finish", "status": self.status})
        return found

    @property
    def experiment(self) -> str:
        """The experiment that the run belongs to."""
        return self.run.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The run's name in its experiment."""
        return self.run.rpartition("/")[2]

    @property
    def open_ref(self) -> str:
        """The ref of the run's draft."""
        return open_ref(self.ref)


def open_ref(ref: str) -> str:
    """Return the ref of the draft of the run that will be at `ref`."""
    return OPEN + ref.removeprefix(RUNS)


def free_number(refs: Container[str], ref: str) -> int:
    """Return the first number, from 2, under which a run may go on that was committed at `ref`."""
    number = 2
    while f"{ref}-{number}" in refs or open_ref(f"{ref}-{number}") in refs:
        number += 1
    return number


def parent_frame(parent: Parent) -> dict[str, Any]:
    """Return the frame that adds a parent."""
    return {
        "t": "parent",
        "role": parent.role,
        "commit": bytes(parent.commit),
        "path": parent.path,
        "attrs": dict(parent.attrs),
    }


def artifact_frame(path: str, entry: Entry) -> dict[str, Any]:
    """Return the frame that names an artifact, whose objects the run's draft holds."""
    return {
        "t": "artifact",
        "path": text_or_bytes(path),
        "kind": int(entry.kind),
        "id": bytes(entry.id),
        "size": entry.size,
        "mode": entry.mode,
    }


def redacted_frame(where: str, kinds: Mapping[str, int]) -> dict[str, Any]:
    """Return the frame that says what was taken out of the texts at a place, by kind."""
    return {"t": "redacted", "where": where, "kinds": dict(sorted(kinds.items()))}


def moved_frame(run: str, ref: str) -> dict[str, Any]:
    """Return the frame that says that the run goes on under another name and ref."""
    return {"t": "moved", "run": run, "ref": ref}


def named_entry(frame: Mapping[str, Any]) -> tuple[str, Entry]:
    """Return the artifact that a frame names, and its path."""
    path = frame["path"]
    path = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    entry = Entry(
        name=path.rpartition("/")[2].encode("utf-8", "surrogateescape"),
        kind=EntryKind(frame["kind"]),
        id=ObjectId(frame["id"]),
        size=frame["size"],
        mode=frame["mode"],
    )
    return path, entry


def text_or_bytes(path: str) -> str | bytes:
    """Return a path as text, as raw bytes where it is no valid text."""
    raw = path.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
