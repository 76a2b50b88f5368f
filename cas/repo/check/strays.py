"""Commits in packs that no root lists, as far as they are whole: with all that they need.

Such packs are left by writers that stopped, and by roots that are lost. Nothing vouches for them
but their records, each for itself; so what a commit needs is followed down to what is listed.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from cas.backend.base import Span
from cas.backend.local import LocalBackend
from cas.codec.base import codec_for
from cas.errors import CasError
from cas.ids import CommitId, ObjectId, TreeId
from cas.objects.commit import Commit
from cas.objects.edges import parse
from cas.objects.kind import Kind
from cas.repo.check.salvage import Saved, salvaged
from cas.repo.packfiles import pack_files
from cas.repo.reach import needs
from cas.repo.repo import Repo
from cas.store.pack import PackInfo
from cas.store.recipe import Recipe
from cas.store.record import DELTAS, RECIPE, RecordHeader, base_of


@dataclass(frozen=True, slots=True)
class _Stray:
    """A record in a pack that is not listed, and what it names."""

    pack: PackInfo
    offset: int
    header: RecordHeader
    names: frozenset[ObjectId]
    commit: Commit | None = None


@dataclass(slots=True)
class Strays:
    """Whole commits that no listed pack has, and the records that they need besides.

    `relied` is what they need of listed packs.
    """

    commits: dict[CommitId, Commit] = field(default_factory=dict)
    relied: set[ObjectId] = field(default_factory=set)
    _payloads: dict[CommitId, TreeId] = field(default_factory=dict)
    _needed: list[_Stray] = field(default_factory=list)

    def payload(self, id: CommitId) -> TreeId | None:
        """Return a commit's payload where that is whole too."""
        return self._payloads.get(id)

    def tips(self) -> list[CommitId]:
        """Return the commits that none of the others was made from."""
        below = {parent.commit for one in self.commits.values() for parent in one.parents}
        return [id for id in self.commits if id not in below]

    def records(self, backend: LocalBackend) -> Iterator[tuple[RecordHeader, bytes]]:
        """Yield all that must be copied, read once more."""
        for stray in self._needed:
            span = Span(stray.offset + RecordHeader.SIZE, stray.header.stored)
            (body,) = backend.read(stray.pack.key, [span])
            yield stray.header, body


def strays(repo: Repo, is_of_use: Callable[[Commit], bool]) -> Strays:
    """Look in every pack file that the newest root neither lists nor condemns."""
    root = repo.refresh()
    repo.store.refresh()
    there = _gathered(repo, {info.name for info in (*root.packs, *root.condemned)})
    depths: dict[ObjectId, int] = {id: stray.header.depth for id, stray in there.items()}
    for id in {name for stray in there.values() for name in stray.names} - there.keys():
        place = repo.store.locate(id)
        if place is not None:
            depths[id] = place.row.depth
    bad = _broken(there, depths)
    found = Strays()
    pending: list[ObjectId] = []
    for id, stray in there.items():
        if stray.commit is None or id in bad or not is_of_use(stray.commit):
            continue
        found.commits[CommitId(id)] = stray.commit
        pending.append(id)
        payload = stray.commit.payload
        if payload is None or payload in bad:
            continue
        if payload in there or repo.store.locate(payload) is not None:
            found._payloads[CommitId(id)] = payload
            pending.append(payload)
    _follow(there, pending, found)
    return found


def _gathered(repo: Repo, known: Collection[bytes]) -> dict[ObjectId, _Stray]:
    """Return records of what no listed pack has, of each object the one that leans on least."""
    there: dict[ObjectId, _Stray] = {}
    for pack in (file.info for file in pack_files(repo.backend)):
        if pack.name in known:
            continue
        for part in salvaged(repo.backend, pack):
            if not isinstance(part, Saved) or repo.store.locate(part.header.id) is not None:
                continue
            other = there.get(part.header.id)
            if other is None or part.header.depth < other.header.depth:
                try:
                    there[part.header.id] = _stray(pack, part)
                except CasError:
                    continue  # of a newer cas, or not what it says
    return there


def _stray(pack: PackInfo, part: Saved) -> _Stray:
    header, body = part.header, part.body
    commit = None
    if header.codec in DELTAS:
        names = frozenset[ObjectId]([base_of(body)])
    elif header.codec == RECIPE:
        names = frozenset[ObjectId](id for id, _ in Recipe.from_bytes(body, header.size).pieces())
    elif header.kind is Kind.BLOB:
        names = frozenset[ObjectId]()
    else:
        obj = parse(header.kind, codec_for(header.codec).decode(body, header.size))
        commit = obj if isinstance(obj, Commit) else None
        names = frozenset(id for _, id in needs(obj))
    return _Stray(pack, part.offset, header, names, commit)


def _broken(there: dict[ObjectId, _Stray], depths: dict[ObjectId, int]) -> set[ObjectId]:
    """Return the strays that need something that is nowhere, or a base that is no less deep."""
    above: dict[ObjectId, list[ObjectId]] = {}
    pending: list[ObjectId] = []
    for id, stray in there.items():
        for name in stray.names:
            above.setdefault(name, []).append(id)
            is_base = stray.header.codec in DELTAS
            if name not in depths or (is_base and depths[name] >= stray.header.depth):
                pending.append(id)
    bad: set[ObjectId] = set()
    while pending:
        id = pending.pop()
        if id not in bad:
            bad.add(id)
            pending += above.get(id, ())
    return bad


def _follow(there: dict[ObjectId, _Stray], pending: list[ObjectId], found: Strays) -> None:
    """Note down all that is needed from here on."""
    seen: set[ObjectId] = set()
    while pending:
        id = pending.pop()
        if id in seen:
            continue
        seen.add(id)
        stray = there.get(id)
        if stray is None:
            found.relied.add(id)
            continue
        found._needed.append(stray)
        pending += stray.names
