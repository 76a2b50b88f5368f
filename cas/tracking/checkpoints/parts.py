"""The parts of a sharded checkpoint until it is there: held by the draft of their run.

Each process stores a part and leaves it in the draft, or leaves word of why it has none. Once all
parts of a save are there, the first process publishes the checkpoint; or it leaves word of what
failed, and the parts go. All that is written here comes from another process: nothing is trusted.
Format: docs/format/run.md, "Sharded checkpoints".
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cas.errors import CorruptionError, NotFoundError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import CHECKPOINT, Commit
from cas.objects.document import document, read_document
from cas.objects.kind import Kind
from cas.objects.manifest import State
from cas.objects.pystate import Flat, flatten
from cas.objects.states import assemble
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.captured import frameworks
from cas.tracking.checkpoints.checkpoint import state_entry

SHARDS: Final = b"shards"
TENSORS: Final = b"tensors"
VALUES: Final = b"values"
PATHS: Final = b"paths"
RNG: Final = b"rng"
PART: Final = b"part"
TOLD: Final = b"told.json"
FAILED: Final = b"failed.json"
MAX_TOLD: Final = 64 * 1024
MAX_REASON: Final = 4096
FAILURES: Final = 8  # of saves that failed the draft remembers the last
LATE: Final = "its part came too late: the save had failed, or its run was taken for dead"

Items = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Part:
    """What one process has stored; `stored` is what it cost, in bytes."""

    number: int
    tree: ObjectId
    size: int
    stored: int


@dataclass(frozen=True, slots=True)
class Save:
    """How far a save has come: the parts there are, and what went wrong, by process."""

    parts: tuple[Part, ...] = ()
    problems: Mapping[int, str] | None = None
    failed: str | None = None

    @property
    def reason(self) -> str | None:
        """Why nothing can come of it; None while all may be well."""
        if self.failed is not None or not self.problems:
            return self.failed
        return "; ".join(f"process {n}: {text}" for n, text in sorted(self.problems.items()))


class Given:
    """What one process has of a checkpoint, flattened: its states by name, and how to store them.

    Called again, it reads tensors again only where they are not stored.
    """

    def __init__(self, states: Mapping[bytes, object]) -> None:
        """Take states as values, or as what is flattened; raise UnstorableError with the path."""
        self.flats = {
            name: value if isinstance(value, Flat) else flatten(value, frameworks.adapters())
            for name, value in states.items()
        }
        self._states: dict[bytes, State] = {}
        self.tree: ObjectId | None = None  # of the part, once it was stored

    def __call__(self, tx: Transaction) -> Entry:
        """Store the part; return its entry as a draft holds it."""
        entries = []
        for name, flat in self.flats.items():
            state = self._states.get(name)
            if state is None or not all(map(tx.writer.has, state.blobs())):
                state = self._states[name] = assemble(flat, tx.writer.blob)
            entries.append((name, state_entry(tx.writer, state, name)))
        part = ingest.nest(tx.writer, entries)
        self.tree = part.id
        told = _file(tx, TOLD, {"stored": tx.writer.stored})
        held = ingest.nest(tx.writer, [(PART, _folder(PART, part.id, part.size)), (TOLD, told)])
        return _folder(PART, held.id, held.size)

    def published(
        self, repo: Repo, span: tuple[CommitId | None, CommitId | None], number: int
    ) -> CommitId | None:
        """Return the checkpoint that has this as the part of a process; None where there is none.

        `span` are the tips of the run before it was stored and now: it stands between them.
        """
        before, tip = span
        for id, commit in segment(repo.commit, tip) if tip is not None else ():
            if id == before:
                return None
            if commit.kind != CHECKPOINT or commit.payload is None:
                continue
            with suppress(NotFoundError):  # it was pruned
                shards = repo.lookup(commit.payload, SHARDS)
                part = repo.lookup(shards.id, str(number).encode()) if shards is not None else None
                if part is not None and part.id == self.tree:
                    return id
        return None


def problem(tx: Transaction, text: str) -> Entry:
    """Return what a process leaves in the draft in place of its part."""
    held = ingest.nest(tx.writer, [(TOLD, _file(tx, TOLD, {"error": text[:MAX_REASON]}))])
    return _folder(PART, held.id, held.size)


def failure(tx: Transaction, text: str) -> Entry:
    """Return what the first process leaves in the draft of a save that failed."""
    return _file(tx, FAILED, {"error": text[:MAX_REASON]})


def path_of(save: int, number: int) -> str:
    """Return where a draft holds what a process has of a save."""
    return f"{SHARDS.decode()}/{save}/{number}"


def failed_path(save: int) -> str:
    """Return where a draft says that a save has failed."""
    return f"{SHARDS.decode()}/{save}/{FAILED.decode()}"


def held(repo: Repo, draft: Commit) -> dict[str, Entry]:
    """Return what a draft holds of saves that are under way, by path."""
    entry = repo.lookup(draft.payload, SHARDS) if draft.payload is not None else None
    if entry is None or entry.kind is not EntryKind.TREE:
        return {}
    return {
        f"{SHARDS.decode()}/{save.name.decode()}/{one.name.decode()}": one
        for save in repo.entries(entry.id)
        if save.kind is EntryKind.TREE
        for one in repo.entries(save.id)
    }


def joined(before: Items, new: Items) -> dict[str, Entry]:
    """Return what a draft holds after this: of a save that failed only that, and of few of them."""
    both = {**before, **new}
    suffix = f"/{FAILED.decode()}"
    failed = [path.removesuffix(suffix) for path in both if path.endswith(suffix)]
    kept = sorted(failed, key=lambda path: (len(path), path))[-FAILURES:]
    return {
        path: entry
        for path, entry in both.items()
        if path.rpartition("/")[0] not in failed
        or (path.endswith(suffix) and path.removesuffix(suffix) in kept)
    }


def look(repo: Repo, draft: Commit, save: int) -> Save:
    """Return how far a save has come; raise CorruptionError for what makes no sense."""
    before = f"{SHARDS.decode()}/{save}/"
    there = {
        path.removeprefix(before): entry
        for path, entry in held(repo, draft).items()
        if path.startswith(before)
    }
    failed = there.pop(FAILED.decode(), None)
    if failed is not None:
        return Save(failed=str(_told(repo, failed).get("error")))
    parts: list[Part] = []
    problems: dict[int, str] = {}
    for name, entry in there.items():
        inside = {one.name: one for one in repo.entries(entry.id)}
        told = _told(repo, inside.get(TOLD))
        part, stored = inside.get(PART), told.get("stored")
        if not name.isdecimal():
            raise CorruptionError(f"shards: a part cannot be named {name!r}")
        if part is None or type(stored) is not int:
            problems[int(name)] = str(told.get("error"))
        else:
            parts.append(Part(int(name), part.id, part.size, stored))
    return Save(tuple(sorted(parts, key=lambda part: part.number)), problems)


def put_together(tx: Transaction, parts: Sequence[Part]) -> Entry:
    """Return the entry of a checkpoint made of parts; raise NotFoundError where one is not held.

    What the draft holds cannot be collected before the transaction that replaces the draft.
    """
    for part in parts:
        if not tx.writer.has(part.tree):
            raise NotFoundError("part", f"{part.number} of the checkpoint", LATE)
    entries = [(str(part.number).encode(), _folder(PART, part.tree, part.size)) for part in parts]
    tree = ingest.nest(tx.writer, entries)
    return _folder(SHARDS, tree.id, tree.size)


def _told(repo: Repo, entry: Entry | None) -> Mapping[str, object]:
    if entry is None or entry.kind is not EntryKind.FILE or entry.size > MAX_TOLD:
        raise CorruptionError("shards: a part says nothing of itself")
    told = read_document(repo.store.read(Kind.BLOB, entry.id))
    if not isinstance(told, dict):
        raise CorruptionError("shards: what a part says of itself is no map")
    return told


def _file(tx: Transaction, name: bytes, value: Mapping[str, object]) -> Entry:
    return ingest.file_entry(tx.writer, name, document(dict(value)))


def _folder(name: bytes, id: ObjectId, size: int) -> Entry:
    return Entry(name, EntryKind.TREE, id, size, ingest.FOLDER_MODE)
