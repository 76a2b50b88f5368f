"""fsck: every promise that the format makes, looked at; nothing is changed.

Never stops at the first finding. Without `full`, structure: format, roots, packs, headers, indexes,
that everything live is there, and every delta's base. With it, every stored byte as well:
checksums, ids, canonical form, deltas decoded, recipes rebuilt, and that whatever a look-up finds
is whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from cas.backend.base import WHOLE
from cas.errors import CasError, CorruptionError, NotFoundError
from cas.ids import ObjectId
from cas.objects.kind import Kind
from cas.progress import SILENT, Progress
from cas.repo import gc, packcheck
from cas.repo import root as roots
from cas.repo.layout import FORMAT, HOLDS, INDEX, ROOTS, SNAPSHOTS, root_key, snapshot_key
from cas.repo.packcheck import ERROR, INFO, WARNING, Finding
from cas.repo.reach import Trouble, Walk
from cas.repo.repo import Repo, check_format
from cas.repo.root import FIRST_PREVIOUS, Root
from cas.store.pack import PackInfo
from cas.store.pinned import PinnedStore

__all__ = ["ERROR", "INFO", "WARNING", "Finding", "Report", "check"]
LOOKS = 5  # at a repository that others change meanwhile


@dataclass(slots=True)
class Report:
    """How much was looked at."""

    roots: int = 0
    packs: int = 0
    bytes: int = 0
    objects: int = 0
    commits: int = 0
    refs: int = 0
    errors: int = 0


def check(
    repo: Repo, *, full: bool = False, report: Report | None = None, progress: Progress = SILENT
) -> Iterator[Finding]:
    """Yield everything that is wrong, or worth knowing; `report` counts what was looked at."""
    for _ in range(LOOKS):
        told = Report()
        findings = list(_Check(repo, full, told, progress).findings())
        told.errors = sum(finding.severity == ERROR for finding in findings)
        # What a collection took away meanwhile is no error: only a root that stands still counts.
        if not told.errors or not _moved_on(repo):
            break
    if report is not None:
        for field in fields(told):
            setattr(report, field.name, getattr(told, field.name))
    yield from findings


def _moved_on(repo: Repo) -> bool:
    try:
        seen = repo.root.seq
        return repo.refresh().seq != seen
    except CasError:
        return False


class _Check:
    """One check at work, against one root."""

    def __init__(self, repo: Repo, full: bool, report: Report, progress: Progress) -> None:
        self._repo = repo
        self._full = full
        self._report = report
        self._progress = progress
        self._damaged: dict[ObjectId, Finding] = {}
        self._halves: list[tuple[ObjectId, Finding]] = []
        self._packs: list[Finding] = []

    def findings(self) -> Iterator[Finding]:
        yield from self._format()
        yield from self._roots()
        try:
            root = self._repo.refresh()
        except CasError as error:
            yield Finding(ERROR, "root", "newest", str(error))
            return
        if (hinted := self._repo.hinted()) > root.seq:
            why = f"it was noted down as the newest, and {root.seq} is the last one here"
            yield Finding(ERROR, "root", root_key(hinted), f"{why}: restore it from a copy")
        store, bad = self._open_packs(root)
        yield from bad
        self._records(store, root)
        yield from self._packs
        yield from self._live(store, root)
        yield from self._holds(root)
        yield from self._indexes(store, root)
        yield from self._strays(root)

    def _format(self) -> Iterator[Finding]:
        try:
            (raw,) = self._repo.backend.read(FORMAT, [WHOLE])
            check_format(raw, str(self._repo.path))
        except CasError as error:
            yield Finding(ERROR, "format", FORMAT, str(error))

    def _roots(self) -> Iterator[Finding]:
        """Check each root that is kept, its snapshots, and that each names the one before."""
        numbers = sorted(_numbers(self._repo))
        named: set[str] = set()
        before: Root | None = None
        for seq in numbers:
            try:
                found = roots.read(self._repo.backend, seq, before)
            except CasError as error:
                yield Finding(ERROR, "root", root_key(seq), str(error))
                before = None
                continue
            self._report.roots += 1
            bases = (found.refs_base, found.packs_base)
            named |= {snapshot_key(base.name) for base in bases if base is not None}
            yield from _link(before, found, first=numbers[0])
            before = found
        for info in self._repo.backend.scan(SNAPSHOTS):
            if info.key not in named:
                yield Finding(INFO, "stray-snapshot", info.key, "no root names it")

    def _open_packs(self, root: Root) -> tuple[PinnedStore, list[Finding]]:
        good: list[PackInfo] = []
        bad: list[Finding] = []
        for pack in root.packs:
            finding = packcheck.structure(self._repo.backend, pack)
            if finding is None:
                good.append(pack)
            else:
                bad.append(finding)
            self._report.packs += 1
            self._report.bytes += pack.length
        return PinnedStore(self._repo.backend, good), bad

    def _records(self, store: PinnedStore, root: Root) -> None:
        """Check each record; what is wrong is told when it is known who needs it."""
        checker = packcheck.Records(store, self._repo.backend, root.tombstones, full=self._full)
        self._progress.start("check records", total=sum(map(len, store.index.segments)))
        for id, finding in checker.findings(self._progress):
            if finding.what == packcheck.PACK:
                self._packs.append(finding)
            elif finding.what == packcheck.HALF:
                self._halves.append((id, finding))
            else:
                self._damaged[id] = finding
        self._progress.finish()

    def _live(self, store: PinnedStore, root: Root) -> Iterator[Finding]:
        """Walk over everything that is kept."""
        troubles: list[Trouble] = []
        self._report.refs = len(root.refs)
        walk = Walk(store, root.refs, root.tombstones, trouble=troubles.append)
        self._progress.start("walk")
        for visit in walk.visits():
            self._report.objects += 1
            self._report.commits += visit.kind is Kind.COMMIT
            self._progress.advance()
            yield from (self._told(trouble) for trouble in troubles)
            troubles.clear()
        self._progress.finish()
        yield from (self._told(trouble) for trouble in troubles)
        # What is kept has been told of by name: these are the others.
        yield from (finding for id, finding in self._halves if id not in walk.seen)
        # Nobody needs these, or another record of the same object is good.
        for finding in self._damaged.values():
            yield Finding(WARNING, finding.what, finding.name, finding.detail)

    def _told(self, trouble: Trouble) -> Finding:
        damage = self._damaged.pop(trouble.id, None)
        if damage is None and trouble.kind is Kind.BLOB:
            damage = next((finding for id, finding in self._halves if id == trouble.id), None)
        name = f"{trouble.kind.name.lower()} {trouble.id}"
        if damage is not None:
            return Finding(ERROR, "damaged", name, f"{trouble.where}: {damage.detail}")
        if not isinstance(trouble.error, NotFoundError):
            return Finding(ERROR, "damaged", name, f"{trouble.where}: {trouble.error}")
        what = "dangling-ref" if trouble.is_tip else "missing"
        return Finding(ERROR, what, name, f"{trouble.where} needs it, and no listed pack has it")

    def _holds(self, root: Root) -> Iterator[Finding]:
        for name, id in sorted(root.refs.items()):
            if name.startswith(HOLDS) and name != f"{HOLDS}{id}":
                yield Finding(ERROR, "hold", name, f"it points at {id}, not at what it is named")

    def _indexes(self, store: PinnedStore, root: Root) -> Iterator[Finding]:
        readable = {info.name: info for info in root.packs}
        for info in self._repo.backend.scan(INDEX):
            problem = packcheck.index_problem(self._repo.backend, info.key, store, readable)
            if problem:
                detail = f"{problem}; delete the file, it is made again when it is needed"
                yield Finding(ERROR, "index", info.key, detail)

    def _strays(self, root: Root) -> Iterator[Finding]:
        """Tell of pack files that the root does not list; `gc` takes them."""
        listed = {info.name for info in root.packs}
        condemned = {info.name: info for info in root.condemned}
        for name in sorted(listed & condemned.keys()):
            yield Finding(ERROR, "pack", name.hex(), "it is listed and condemned at once")
        for info in gc.pack_files(self._repo):
            if info.name in condemned:
                yield Finding(INFO, "condemned-pack", info.key, "an unfinished gc left it")
            elif info.name not in listed:
                yield Finding(INFO, "orphan-pack", info.key, "no root lists it")


def _numbers(repo: Repo) -> Iterator[int]:
    for info in repo.backend.scan(ROOTS):
        text = info.key.removeprefix(ROOTS)
        if text.isascii() and text.isdigit() and root_key(int(text)) == info.key:
            yield int(text)


def _link(before: Root | None, found: Root, first: int) -> Iterator[Finding]:
    """Check that a root follows the one before it."""
    key = root_key(found.seq)
    if found.seq == 1 and found.previous != FIRST_PREVIOUS:
        yield Finding(ERROR, "root", key, "the first root names one before it")
    if before is None:
        return
    if before.seq + 1 != found.seq:
        yield Finding(ERROR, "root", key, f"the roots between {before.seq} and it are gone")
    elif found.previous != before.check:
        yield Finding(ERROR, "root", key, f"it does not follow root {before.seq} as that stands")


def failure(report: Report) -> CorruptionError | None:
    """Return the error that a check with findings amounts to."""
    if not report.errors:
        return None
    found = "1 error" if report.errors == 1 else f"{report.errors:,} errors"
    return CorruptionError(f"fsck found {found}: restore what is named from a copy")
