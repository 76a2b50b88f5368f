"""How many bytes a repository or a commit takes, of what, and what was saved of them.

Every column of a `Line` is exact, and the lines add up to the files on disk:

- *given*: the bytes of the files, states and metrics in all commits that refs keep, as if each
  commit's folders (the payload while it is held, and the record) lay side by side as plain files;
- *shared*: what of that is not stored again because it is stored once already;
- *planes*, *deltas*, *zstd*: what the records that are left have in size beyond what they have
  stored, each record counted under its own codec;
- *added*: what nobody gave: record headers, manifests but for the small tensors in them, recipes,
  bases that only deltas need, folders, commits, what is not kept any more (`cas gc` frees it), and
  the upkeep: footers, indexes, roots, journals and settings;
- *stored* = given - shared - planes - deltas - zstd + added: bytes on disk, by the lengths of the
  files. What the file system itself adds to them is not counted.

Footers, trees, manifests and recipes are read, no blob.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Final, TypeVar

from cas.errors import ConflictError, CorruptionError, NotFoundError
from cas.ids import CommitId, ObjectId, TreeId
from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.progress import SILENT, Progress
from cas.repo.layout import HOLDS, PACKS
from cas.repo.marking import mark
from cas.repo.repo import Repo
from cas.repo.report.tally import HEADER, Line, Part, Tally
from cas.repo.retain.choice import segment
from cas.repo.root import Root
from cas.repo.transaction import ATTEMPTS
from cas.store.pack import Row
from cas.store.pinned import PinnedStore

T = TypeVar("T")
TOTAL: Final = "total"
KEPT: Final = "kept/"  # no room of a repository


@dataclass(frozen=True, slots=True)
class Usage:
    """What a repository takes: a line for each part, and their sum."""

    lines: tuple[Line, ...]
    total: Line
    commits: int
    missing: int  # objects that are needed and neither stored nor known to be lost


@dataclass(frozen=True, slots=True)
class Claim:
    """What a commit takes now.

    `own_bytes` of its `stored_bytes` serve nothing else: `prune` and `gc` would free them, and
    rewrite what else is a delta against them. The rest is shared, or its record, which stays.
    """

    commit: CommitId
    given_bytes: int
    stored_bytes: int
    own_bytes: int
    is_pruned: bool

    @property
    def shared_bytes(self) -> int:
        """What would stay stored."""
        return self.stored_bytes - self.own_bytes


@dataclass(frozen=True, slots=True)
class Claims:
    """What some commits take, each by itself and all together."""

    commits: tuple[Claim, ...]
    lines: tuple[Line, ...]  # of all together
    total: Line
    own_bytes: int


def usage(repo: Repo, *, progress: Progress = SILENT) -> Usage:
    """Return what the whole repository takes; raise CorruptionError for one that is damaged."""
    return _steadily(repo, lambda root: _usage(repo, root, progress))


def _steadily(repo: Repo, count: Callable[[Root], T]) -> T:
    """Return what is counted at the newest root, again from the start where packs went meanwhile.

    Raises what the count raises where nothing has changed, and ConflictError for endless changes.
    """
    root = repo.refresh()
    for _ in range(ATTEMPTS):
        try:
            return count(root)
        except (CorruptionError, NotFoundError):
            seen, root = root, repo.refresh()
            if root.seq == seen.seq:
                raise
    raise ConflictError("the repository")


def _usage(repo: Repo, root: Root, progress: Progress) -> Usage:
    store = PinnedStore(repo.backend, root.packs)
    progress.start("count entries")
    tally = Tally(store, progress=progress)
    commits = dict(_commits(store, root.refs.values(), tally.missing))
    for id, commit in commits.items():
        tally.commit(id)
        for tree in _trees(root, id, commit):
            tally.tree(tree)
    tally.close()
    progress.finish()
    unlisted, on_disk = bytes_on_disk(repo.path, root)
    rows = [row for info in root.packs for row in Row.LAYOUT.iter_unpack(store.rows(info).rows)]
    records = sum(HEADER + row[2] for row in rows)
    unused = Line(
        Part.UNUSED,
        len(rows) - len(tally.taken),
        added_bytes=records - sum(tally.taken.values()) + unlisted,
    )
    upkeep = Line(Part.UPKEEP, added_bytes=on_disk - records - unlisted)
    lines = (*tally.lines(), unused, upkeep)
    missing = len(tally.missing - root.tombstones.keys())
    return Usage(lines, _total(lines), len(commits), missing)


def claims(repo: Repo, ids: Sequence[CommitId], *, progress: Progress = SILENT) -> Claims:
    """Return what these commits take, and what of it serves no others."""
    return _steadily(repo, lambda root: _claims(repo, root, ids, progress))


def _claims(repo: Repo, root: Root, ids: Sequence[CommitId], progress: Progress) -> Claims:
    store = PinnedStore(repo.backend, root.packs)
    progress.start("count entries")
    stays = _staying(store, root, ids, progress)
    each = [(id, _alone(repo, root, store, [id])) for id in ids]
    together = each[0][1] if len(ids) == 1 else _alone(repo, root, store, ids)
    progress.finish()
    needed = Counter(record for _, alone in each for record in alone.taken)
    lines = tuple(together.lines())
    own = {id: size for id, size in together.taken.items() if not stays(id)}
    return Claims(
        tuple(
            Claim(
                id,
                given_bytes=sum(alone.given.values()),
                stored_bytes=sum(alone.taken.values()),
                own_bytes=sum(
                    own[record] for record in alone.taken if record in own and needed[record] == 1
                ),
                is_pruned=repo.commit(id).payload is not None and not _is_held(root, id),
            )
            for id, alone in each
        ),
        lines,
        _total(lines),
        sum(own.values()),
    )


def _staying(
    store: PinnedStore, root: Root, ids: Sequence[CommitId], progress: Progress
) -> Callable[[ObjectId], bool]:
    """Return what says whether a record would stay if these commits were let go of."""
    holds = {f"{HOLDS}{id}" for id in ids}
    refs = {name: id for name, id in root.refs.items() if name not in holds}
    # A commit that only its hold keeps is one that somebody is just making.
    refs |= {f"{KEPT}{id}": id for id in ids}
    try:
        return mark(store, refs, root.tombstones).__contains__
    except CorruptionError:
        pass  # something is lost: it is counted around
    others = Tally(store, progress=progress)
    for id, commit in _commits(store, root.refs.values(), others.missing):
        others.commit(id)
        for tree in [commit.tree] if id in ids else _trees(root, id, commit):
            others.tree(tree)
    others.close()
    return others.taken.__contains__


def commits_of(repo: Repo, id: CommitId) -> list[CommitId]:
    """Return the commits that a revision stands for here: a run's are all, oldest first."""
    commit = repo.commit(id)
    if commit.kind != "run":
        return [id]
    return [one for one, _ in segment(repo.commit, id)][::-1]


def _alone(repo: Repo, root: Root, store: PinnedStore, ids: Sequence[CommitId]) -> Tally:
    """Count what some commits need, as if there were no others."""
    tally = Tally(store)
    for id in ids:
        tally.commit(id)
        for tree in _trees(root, id, repo.commit(id)):
            tally.tree(tree)
    tally.close()
    return tally


def _commits(
    store: PinnedStore, tips: Collection[CommitId], missing: set[ObjectId]
) -> Iterator[tuple[CommitId, Commit]]:
    """Yield the commits that refs keep, each once; note those that are not there."""
    pending = list(tips)
    seen: set[CommitId] = set()
    while pending:
        id = pending.pop()
        if id in seen:
            continue
        seen.add(id)
        if not store.places(id):
            missing.add(id)
            continue
        commit = Commit.from_bytes(store.read(Kind.COMMIT, id))
        yield id, commit
        pending.extend(parent.commit for parent in commit.parents)


def _trees(root: Root, id: CommitId, commit: Commit) -> list[TreeId]:
    """Return the folders of a commit that are kept."""
    payload = commit.payload if _is_held(root, id) else None
    return [commit.tree] if payload is None else [commit.tree, payload]


def _is_held(root: Root, id: CommitId) -> bool:
    return f"{HOLDS}{id}" in root.refs


def bytes_on_disk(path: Path, root: Root) -> tuple[int, int]:
    """Return the bytes of packs that are not listed, and of all files there are."""
    known = {info.key for info in root.packs}
    unlisted = total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            place = os.path.join(folder, name)
            with suppress(OSError):  # gone since: others are at work
                size = os.lstat(place).st_size
                total += size
                key = os.path.relpath(place, path)
                unlisted += size if key.startswith(PACKS) and key not in known else 0
    return unlisted, total


def _total(lines: Sequence[Line]) -> Line:
    return reduce(add, lines, Line(TOTAL))
