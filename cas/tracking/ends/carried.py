"""What a run that goes on takes over from before it broke off, beside points, params and artifacts.

Of what was logged and of its events that is what came before the checkpoint that it goes on from:
the rest is done again, and stands in the commit that it broke off with. What was seen of the
machine is not done again, so all of it is taken over.
Format: docs/format/run.md.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import CasError, CorruptionError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import Commit
from cas.repo.repo import Repo
from cas.tracking.ends.course import columns
from cas.tracking.numbers.columns import POINT
from cas.tracking.shown.logged import Logged, frames
from cas.tracking.shown.loggedrecord import Index
from cas.tracking.watching.events import as_event

RESUMED: Final = "resumed.json"
OF_MACHINE: Final = frozenset({"stalled", "disk_full"})  # kinds of events that no step repeats


@dataclass(frozen=True, slots=True)
class Carried:
    """What is taken over, as frames of a journal, and what could not be read."""

    logged: tuple[Logged, ...]
    events: tuple[Mapping[str, Any], ...]
    system: Mapping[str, Any] | None
    unread: tuple[str, ...]

    def frames(self) -> Iterator[dict[str, Any]]:
        """Yield the frames that tell of it; the files among it have to be held by a draft."""
        yield from (dict(event) for event in self.events)
        if self.system is not None:
            yield dict(self.system)
        yield from frames(self.logged)

    @property
    def files(self) -> tuple[Logged, ...]:
        """What was logged as a file."""
        return tuple(row for row in self.logged if row.id is not None)

    @property
    def last(self) -> int:
        """The microseconds since the epoch at which the newest of what was logged was; else 0."""
        return max((_microseconds(row.time) for row in self.logged), default=0)


def carried(repo: Repo, tip: CommitId, base: Commit | None) -> Carried:
    """Return what a run takes over that broke off with `tip` and goes on from a checkpoint.

    What is damaged or let go of is left out and named: it keeps nobody from training on.
    """
    until = base.time or 0 if base is not None else -1
    logged: list[Logged] = []
    unread: list[str] = []
    try:
        index = Index(repo, tip)
        keys = sorted(index.counts())
    except CasError:
        return Carried((), (), None, ("what was logged",))
    for where in keys:
        try:
            before = [row for row in index.rows(where) if _microseconds(row.time) <= until]
        except CasError:
            unread.append(f"{where[0]} {where[1]}")
            continue
        there = [row for row in before if row.id is None or repo.store.find(row.id) is not None]
        logged += there
        unread += [f"{where[0]} {where[1]}"] if len(there) < len(before) else []
    commit = repo.commit(tip)
    events, system = _events(repo, commit, until), None
    try:
        system = _system(repo, commit)
    except CasError:
        unread.append("system metrics")
    return Carried(tuple(logged), events, system, tuple(unread))


def gone_on(repo: Repo, commit: Commit) -> tuple[CommitId, CommitId | None] | None:
    """Return the commit that a run broke off with before, and the checkpoint that it goes on from.

    None of a run that was never gone on with; the last time of one that was several times.
    """
    told = repo.document(commit.tree, RESUMED)
    times = told.get("resumed") if isinstance(told, dict) else None
    last = times[-1] if isinstance(times, list) and times else None
    if not isinstance(last, dict):
        return None
    after, base = last.get("after"), last.get("checkpoint")
    if not isinstance(after, str) or not isinstance(base, str | None):
        return None
    known = [CommitId(ObjectId.parse(id)) for id in (after, base) if id is not None]
    return known[0], known[1] if base is not None else None


def _events(repo: Repo, commit: Commit, until: int) -> tuple[Mapping[str, Any], ...]:
    if repo.lookup(commit.tree, b"events.json") is None:
        return ()
    told = repo.document(commit.tree, "events.json")
    found = []
    for one in told if isinstance(told, list) else []:
        try:
            event = as_event(one)
        except (KeyError, TypeError, ValueError):
            continue
        if event.kind in OF_MACHINE or _microseconds(event.time) <= until:
            found.append(event.frame())
    return tuple(found)


def _system(repo: Repo, commit: Commit) -> Mapping[str, Any] | None:
    """Return the system metrics as a frame: their steps are microseconds since the epoch."""
    known = columns(repo, commit, "system")
    if not known:
        return None
    times = {name: _times(steps) for name, (steps, _) in known.items()}
    return {
        "t": "system",
        "names": list(known),
        "steps": [steps for steps, _ in known.values()],
        "values": [values for _, values in known.values()],
        "times": [times[name] for name in known],
    }


def _times(steps: bytes) -> bytes:
    count, rest = divmod(len(steps), POINT)
    if rest:
        raise CorruptionError("system metrics: a column is whole numbers of eight bytes")
    known = struct.unpack(f"<{count}q", steps)
    return struct.pack(f"<{count}d", *(at / 1e6 for at in known))


def _microseconds(seconds: float) -> int:
    """Return a moment in whole microseconds; what is none was before everything."""
    return round(seconds * 1e6) if math.isfinite(seconds) else 0
