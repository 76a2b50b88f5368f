"""Against which blob a piece of a tensor may be stored as a delta.

The same tensor, by path, dtype and shape, in the commit before, in the one that was resumed from,
or in the base model; there, and where a file has got another name, also under another path. A
tensor that is cut pairs block by block. Nothing here reads a tensor's bytes: whether a pair is any
good, the codec says.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from cas.codec.element import Element
from cas.ids import BlobId, CommitId, ManifestId, TreeId
from cas.objects.commit import BASE_MODEL, PREVIOUS, RESUMED_FROM
from cas.objects.elements import element_of
from cas.objects.manifest import DTYPES, State
from cas.objects.tree import Entry, EntryKind
from cas.progress import SILENT, Progress
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.root import Root
from cas.repo.trees.diff import diff
from cas.repo.trees.tensors import tensors_of
from cas.store.pinned import PinnedStore
from cas.store.recipe import MAX_LEVELS
from cas.store.record import RECIPE

MIN_SIZE: Final = 4096  # a smaller tensor as a delta is not worth the second look-up
MIN_FILE: Final = 64 * 1024  # a smaller file is not cut
ROLES: Final = (PREVIOUS, RESUMED_FROM, BASE_MODEL)
MAX_SUFFIXES: Final = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A piece that is kept, what its numbers are, and its possible bases, the nearest first."""

    piece: BlobId
    size: int
    element: Element
    bases: tuple[BlobId, ...]


class Tensor(NamedTuple):
    """One tensor of a commit, whatever it stands in."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    id: BlobId
    nbytes: int


Key = tuple[str, str, tuple[int, ...]]
Named = Mapping[Key, BlobId | None]


def candidates(
    repo: Repo, store: PinnedStore, root: Root, *, progress: Progress = SILENT
) -> Iterator[Candidate]:
    """Yield each piece of a held payload that has a possible base, those of older commits first.

    Each piece comes once, with what was found where it first occurs. Raises NotFoundError or
    CorruptionError for what cannot be read.
    """
    seen: set[BlobId] = set()
    pairs = _Pairs(repo, store)
    history = _History(repo, root)
    for commit, relatives in history.held():
        found: dict[BlobId, Candidate] = {}
        for role, relative in relatives:
            for pair in pairs.between(commit, relative, anywhere=role == BASE_MODEL):
                _join(found, pair)
        yield from (item for piece, item in found.items() if piece not in seen)
        seen.update(found)
        progress.advance()


def _join(found: dict[BlobId, Candidate], pair: Candidate) -> None:
    """Add the base of a pair to those of the same piece."""
    known = found.get(pair.piece)
    bases = known.bases if known else ()
    if not set(pair.bases) <= set(bases):
        found[pair.piece] = Candidate(pair.piece, pair.size, pair.element, bases + pair.bases)


class _History:
    """The commits that refs lead to."""

    def __init__(self, repo: Repo, root: Root) -> None:
        self._repo = repo
        self._tips = [root.refs[name] for name in sorted(root.refs)]
        self._held = {id for name, id in root.refs.items() if name.startswith(HOLDS)}
        self._commits: dict[CommitId, tuple[TreeId | None, tuple[tuple[str, CommitId], ...]]] = {}

    def held(self) -> Iterator[tuple[TreeId, list[tuple[str, TreeId]]]]:
        """Yield each payload that is held, after those it came from, and these with their roles."""
        for id in self._oldest_first():
            payload, parents = self._commits[id]
            if payload is None:
                continue
            relatives: dict[TreeId, str] = {}
            for role in ROLES:
                for parent in (commit for known, commit in parents if known == role):
                    base = self._nearest(parent)
                    if base not in {None, payload}:
                        relatives.setdefault(base, role)
            yield payload, [(role, base) for base, role in relatives.items()]

    def _oldest_first(self) -> Iterator[CommitId]:
        """Yield every commit once, its parents before it."""
        done: set[CommitId] = set()
        pending = list(reversed(self._tips))
        while pending:
            id = pending[-1]
            missing = [] if id in done else self._parents(id)
            missing = [parent for parent in missing if parent not in self._commits]
            if missing:
                pending += missing
                continue
            pending.pop()
            if id not in done:
                done.add(id)
                yield id

    def _parents(self, id: CommitId) -> list[CommitId]:
        if id not in self._commits:
            commit = self._repo.commit(id)
            edges = tuple((parent.role, parent.commit) for parent in commit.parents)
            self._commits[id] = (commit.payload if id in self._held else None, edges)
        return [parent for _, parent in self._commits[id][1]]

    def _nearest(self, id: CommitId) -> TreeId | None:
        """Return the payload of a commit, or of the nearest one before it that is still held."""
        seen: set[CommitId] = set()
        at: CommitId | None = id
        while at is not None and at not in seen:
            seen.add(at)
            payload, parents = self._commits[at]
            if payload is not None:
                return payload
            before = dict(reversed(parents))
            at = before.get(PREVIOUS) or before.get(RESUMED_FROM)
        return None


class _Pairs:
    """The tensors of two payloads, side by side."""

    def __init__(self, repo: Repo, store: PinnedStore) -> None:
        self._repo = repo
        self._store = store
        # Of the payload that was last looked for names in: many fine-tunes have one base.
        self._whole: tuple[TreeId | None, Named] = (None, {})

    def between(self, new: TreeId, old: TreeId, *, anywhere: bool) -> Iterator[Candidate]:
        """Yield the pieces of `new` with their counterparts in `old`.

        What is not at the same path there is looked for by name in the files that are only there,
        or `anywhere`.
        """
        changes = [
            (_holder(change.old), _holder(change.new)) for change in diff(self._repo, old, new)
        ]
        strays: list[Tensor] = []
        for before, after in changes:
            known = {_key(tensor): tensor.id for tensor in self._tensors(before)}
            for tensor in self._tensors(after):
                if (base := known.get(_key(tensor))) is not None:
                    yield from self._blocks(tensor, base)
                elif anywhere or before is None:
                    strays.append(tensor)
        gone = [before for before, after in changes if before is not None and after is None]
        if strays and (anywhere or gone):
            yield from self._by_name(strays, self._all(old) if anywhere else self._names(gone))

    def _by_name(self, tensors: Iterable[Tensor], named: Named) -> Iterator[Candidate]:
        for tensor in tensors:
            found = (named.get((name, *_key(tensor)[1:])) for name in _suffixes(tensor.name))
            base = next((id for id in found if id is not None), None)
            if base is not None:
                yield from self._blocks(tensor, base)

    def _all(self, tree: TreeId) -> Named:
        """Return the tensors of a payload by name, wherever they stand in it."""
        if self._whole[0] != tree:
            entries = (_holder(change.new) for change in diff(self._repo, None, tree))
            self._whole = (tree, self._names(entries))
        return self._whole[1]

    def _names(self, entries: Iterable[Entry | None]) -> Named:
        """Return tensors by their names and the ends of these; what is not clear is left out."""
        found: dict[Key, BlobId | None] = {}
        for entry in entries:
            for tensor in self._tensors(entry):
                for name in _suffixes(tensor.name):
                    key = (name, *_key(tensor)[1:])
                    clear = found.get(key, tensor.id) == tensor.id
                    found[key] = tensor.id if clear else None
        return found

    def _tensors(self, entry: Entry | None) -> Iterator[Tensor]:
        """Yield the tensors of a state or of a file that was cut at its tensors."""
        if entry is None:
            return
        if entry.kind is EntryKind.STATE:
            state = self._repo.manifest(ManifestId(entry.id))
            if isinstance(state, State):
                for row in state.rows:
                    if row.nbytes >= MIN_SIZE:
                        yield Tensor(row.label, row.dtype, row.shape, row.id, row.nbytes)
        else:
            yield from self._cut(BlobId(entry.id))

    def _cut(self, file: BlobId) -> Iterator[Tensor]:
        places = self._store.places(file)
        if not places or places[0].row.codec != RECIPE:
            return
        listing = tensors_of(self._repo, file)
        for found in () if listing is None else listing.tensors:
            if found.id is not None and found.dtype in DTYPES and found.nbytes >= MIN_SIZE:
                yield Tensor(found.name, found.dtype, found.shape, found.id, found.nbytes)

    def _blocks(self, tensor: Tensor, base: BlobId) -> Iterator[Candidate]:
        element = element_of(tensor.dtype)
        for piece, size, other in self._pieces(tensor.id, base, tensor.nbytes, MAX_LEVELS):
            if size >= MIN_SIZE:
                yield Candidate(piece, size, element, (other,))

    def _pieces(
        self, new: BlobId, old: BlobId, size: int, levels: int
    ) -> Iterator[tuple[BlobId, int, BlobId]]:
        """Yield the pieces of one blob that differ from those at the same place of another."""
        if new == old or levels < 0:
            return
        left, right = (self._store.places(id)[:1] for id in (new, old))
        if not left or not right:
            return
        mine, theirs = self._store.recipe(left[0]), self._store.recipe(right[0])
        if mine is None and theirs is None:
            yield new, size, old
        elif mine is not None and theirs is not None and mine.sizes == theirs.sizes:
            both = zip(mine.pieces(), theirs.pieces(), strict=True)
            for (piece, length), (other, _) in both:
                yield from self._pieces(piece, other, length, levels - 1)


def _holder(entry: Entry | None) -> Entry | None:
    """Return an entry in which there may be tensors."""
    if entry is None or not entry.stored:
        return None
    large = entry.kind is EntryKind.FILE and entry.size > MIN_FILE
    return entry if large or entry.kind is EntryKind.STATE else None


def _key(tensor: Tensor) -> Key:
    return tensor.name, tensor.dtype, tensor.shape


def _suffixes(name: str) -> Iterator[str]:
    """Yield a name without the parts in front, one after another: `model.` or the like."""
    parts = name.split(".")
    return (".".join(parts[at:]) for at in range(min(len(parts), MAX_SUFFIXES)))
