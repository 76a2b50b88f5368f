"""Who holds the space: what each experiment, run or artifact alone needs, and what several share.

A record that one group alone needs would be freed with it; one that several need stays for as long
as one of them does. Every record is visited at most twice: whatever two groups share is known to be
shared with all that is below it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cas.errors import CasError, RefusedError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.objects.node import EntryKind
from cas.progress import SILENT, Progress
from cas.repo.collect.replace import refused
from cas.repo.layout import HOLDS, OPEN, RUNS
from cas.repo.marking import Marker, OddError, each_once, mark
from cas.repo.marks import Live
from cas.repo.repo import Repo
from cas.repo.report.usage import bytes_on_disk
from cas.repo.retain.choice import reached
from cas.repo.root import Root
from cas.store.pinned import PinnedStore
from cas.store.record import RecordHeader

if TYPE_CHECKING:
    from cas.store.rowarray import Numbers

SHARED: Final = -2
NOBODY: Final = -1
FOLDERS: Final = frozenset({"artifacts"})  # whose entries count one by one
HISTORY: Final = "history"  # commits and folders


class By(StrEnum):
    """What the space is counted by."""

    EXPERIMENT = "experiment"
    RUN = "run"
    ARTIFACT = "artifact"


@dataclass(frozen=True, slots=True)
class Owner:
    """What one group needs that nobody else does; `commits` counts those that have a payload."""

    name: str
    own_bytes: int
    own_objects: int
    commits: int


@dataclass(frozen=True, slots=True)
class Owners:
    """The groups, largest first, and the rest of what is on disk."""

    owners: tuple[Owner, ...]
    shared_bytes: int
    unused_bytes: int
    upkeep_bytes: int

    @property
    def total_bytes(self) -> int:
        """All that there is on disk."""
        own = sum(owner.own_bytes for owner in self.owners)
        return own + self.shared_bytes + self.unused_bytes + self.upkeep_bytes


def owners(repo: Repo, by: By, *, progress: Progress = SILENT) -> Owners:
    """Return what each group alone needs; raise RefusedError when something cannot be read."""
    root = repo.refresh()
    try:
        store = PinnedStore(repo.backend, root.packs)
        counted = _Owned(store, root, progress)
        groups = _by_artifact(repo, root) if by is By.ARTIFACT else _by_ref(repo, root, by)
        commits = {name: group.claim(counted, name) for name, group in groups.items()}
        if by is By.ARTIFACT:
            counted.rest(HISTORY, mark(store, root.refs, root.tombstones))
        return counted.told(repo, root, commits)
    except CasError as error:
        raise refused(error, "told") from error
    except OddError as error:
        try:
            mark(store, root.refs, root.tombstones)  # which says by name what is wrong
        except CasError as known:
            raise refused(known, "told") from known
        raise RefusedError("what is stored is odd: look with `cas fsck`") from error


@dataclass(slots=True)
class _Group:
    """What one group keeps: commits with their histories, or single things by kind."""

    tips: dict[CommitId, None]
    held: set[ObjectId]
    trees: bytearray
    manifests: bytearray
    blobs: bytearray
    commits: int = 0

    @classmethod
    def new(cls) -> "_Group":
        """Return one with nothing in it."""
        return cls({}, set(), bytearray(), bytearray(), bytearray())

    def claim(self, counted: "_Owned", name: str) -> int:
        """Claim all that is needed; return how many commits have a payload."""
        counted.begin(name)
        if self.tips:
            counted.history(self.tips, self.held)
        counted.content(self.trees, self.manifests, self.blobs)
        return self.commits


class _Owned(Marker):
    """Marks by owner: the number of the one group that needs a record, or SHARED."""

    def __init__(self, store: PinnedStore, root: Root, progress: Progress) -> None:
        import numpy as np

        super().__init__(store, root.tombstones, progress)
        self._owner = np.full(len(self._table), NOBODY, np.int32)
        self._names: list[str] = []

    def begin(self, name: str) -> None:
        """Go on with another group."""
        self._names.append(name)

    def _claimed(self, found: "Numbers") -> "Numbers":
        import numpy as np

        group, owner = len(self._names) - 1, self._owner
        now = owner[found]
        new = each_once(found[(now != group) & (now != SHARED)])
        owner[new] = np.where(owner[new] == NOBODY, group, SHARED)
        return new

    def rest(self, name: str, live: Live) -> None:
        """Give what is live and has no owner yet to a group of its own."""
        self.begin(name)
        self._owner[(self._owner == NOBODY) & (live.array() > 0)] = len(self._names) - 1

    def told(self, repo: Repo, root: Root, commits: Mapping[str, int]) -> Owners:
        """Return the sums."""
        import numpy as np

        sizes = self._table.rows["stored"].astype(np.int64) + RecordHeader.SIZE
        found = []
        for number, name in enumerate(self._names):
            mine = self._owner == number
            own = int(sizes[mine].sum())
            found.append(Owner(name, own, int(mine.sum()), commits.get(name, 0)))
        unlisted, total = bytes_on_disk(repo.path, root)
        records = int(sizes.sum())
        return Owners(
            tuple(sorted(found, key=lambda owner: (-owner.own_bytes, owner.name))),
            shared_bytes=int(sizes[self._owner == SHARED].sum()),
            unused_bytes=int(sizes[self._owner == NOBODY].sum()) + unlisted,
            upkeep_bytes=total - records - unlisted,
        )


def _by_ref(repo: Repo, root: Root, by: By) -> dict[str, _Group]:
    """Return the groups of refs: runs or experiments, and the other rooms."""
    groups: dict[str, _Group] = {}
    rooms: dict[ObjectId, str] = {}
    for ref, id in sorted(root.refs.items()):
        if not ref.startswith(HOLDS):
            name = _group_of(ref, by)
            groups.setdefault(name, _Group.new()).tips[id] = None
            rooms.setdefault(id, name)
    for ref, id in root.refs.items():
        if ref.startswith(HOLDS):
            commit = repo.commit(id)
            name = _run_of(commit, by) or rooms.get(id, "other commits")
            group = groups.setdefault(name, _Group.new())
            group.tips[id] = None
            group.held.add(id)
            group.commits += 1
    return groups


def _group_of(ref: str, by: By) -> str:
    for room in (RUNS, OPEN):
        if ref.startswith(room):
            run = ref.removeprefix(room)
            return run if by is By.RUN else run.rpartition("/")[0]
    return ref.partition("/")[0]


def _run_of(commit: Commit, by: By) -> str | None:
    if commit.run is None or commit.experiment is None:
        return None
    return f"{commit.experiment}/{commit.run}" if by is By.RUN else commit.experiment


def _by_artifact(repo: Repo, root: Root) -> dict[str, _Group]:
    """Return the groups of what commits hold, by the names at the top of their folders."""
    groups: dict[str, _Group] = {}
    seen: set[ObjectId] = set()
    for id, commit in reached(root.refs.values(), repo.commit):
        if commit is None:
            continue
        trees: list[ObjectId] = [commit.tree]
        if commit.payload is not None and f"{HOLDS}{id}" in root.refs:
            trees.append(commit.payload)
        for tree in trees:
            for name, kind, target in _named(repo, tree, seen):
                group = groups.setdefault(name, _Group.new())
                _part(group, kind).extend(target)
    return groups


def _named(repo: Repo, tree: ObjectId, seen: set[ObjectId]) -> Iterator[tuple[str, Kind, ObjectId]]:
    if tree in seen:
        return
    seen.add(tree)
    for entry in repo.entries(tree):
        name = entry.name.decode("utf-8", "replace")
        if entry.kind is EntryKind.LINK or not entry.stored:
            continue
        if entry.kind is EntryKind.TREE and name in FOLDERS:
            inside = (
                (f"{name}/{below}", kind, id) for below, kind, id in _named(repo, entry.id, seen)
            )
            yield from inside
        else:
            yield name, _KINDS[entry.kind], entry.id


_KINDS: Final = {
    EntryKind.FILE: Kind.BLOB,
    EntryKind.TREE: Kind.TREE,
    EntryKind.STATE: Kind.MANIFEST,
    EntryKind.SERIES: Kind.MANIFEST,
}


def _part(group: _Group, kind: Kind) -> bytearray:
    return {Kind.TREE: group.trees, Kind.MANIFEST: group.manifests}.get(kind, group.blobs)
