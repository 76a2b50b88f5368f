"""fsck: every promise that the format makes, looked at; nothing is changed.

Never stops at the first finding. Always structure: format, roots, packs, headers, indexes, that
everything live is there, and every delta's base. Of all stored bytes, or of a part that comes round
to all of them, checksums, ids and canonical form as well, and that deltas decode. With `full` also
that large blobs are what their pieces make, and that whatever a look-up finds is whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from cas.backend.base import WHOLE
from cas.errors import CasError, CorruptionError, NotFoundError
from cas.ids import ObjectId
from cas.objects.kind import Kind
from cas.progress import SILENT, Progress
from cas.repo import config
from cas.repo import root as roots
from cas.repo.check import losses, packcheck
from cas.repo.check.losses import Loss
from cas.repo.check.packcheck import ERROR, INFO, WARNING, Finding
from cas.repo.layout import CONFIG, FORMAT, HOLDS, INDEX, SNAPSHOTS, root_key, snapshot_key
from cas.repo.marking import mark
from cas.repo.packfiles import pack_files
from cas.repo.reach import Trouble, Walk
from cas.repo.repo import Repo, check_format
from cas.repo.root import FIRST_PREVIOUS, Root
from cas.repo.vanished import Vanished, Watch
from cas.store.pack import PackInfo
from cas.store.pinned import PinnedStore

if TYPE_CHECKING:
    from cas.repo.check.recordcheck import Records
    from cas.repo.check.window import Position
    from cas.store.rowarray import Numbers

__all__ = ["ERROR", "INFO", "WARNING", "Finding", "Report", "check", "examine", "failure"]
LOOKS: Final = 5  # at a repository that others change meanwhile
HINT: Final = "fsck"  # where the next window begins
ACCEPT: Final = "fsck --accept-loss"
ALL: Final = Fraction(100)
NONE: Final = Fraction(0)


@dataclass(slots=True)
class Report:
    """How much was looked at."""

    roots: int = 0
    packs: int = 0
    bytes: int = 0
    read_bytes: int = 0
    objects: int = 0
    commits: int = 0
    whole_commits: int = 0
    refs: int = 0
    errors: int = 0


@dataclass(slots=True)
class Damage:
    """What a repair can do something about."""

    packs: list[PackInfo] = field(default_factory=list)  # whose structure is broken
    spoiled: set[PackInfo] = field(default_factory=set)  # in which records are damaged
    indexes: list[str] = field(default_factory=list)
    missing: set[ObjectId] = field(default_factory=set)  # that refs need, and no pack has
    helpless: dict[ObjectId, PackInfo] = field(default_factory=dict)  # deltas without a base
    absent: set[ObjectId] = field(default_factory=set)  # that records name, and no pack has
    vanished: list[Vanished] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)  # that are damaged, or do not follow
    lost_root: int = 0  # that was the newest once, and is gone

    @property
    def lost_roots(self) -> set[int]:
        """The numbers of all roots of which something is wrong."""
        return {*self.roots, self.lost_root} - {0}


@dataclass(slots=True)
class Examined:
    """What one look has found."""

    report: Report = field(default_factory=Report)
    findings: list[Finding] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)  # by commit
    damage: Damage = field(default_factory=Damage)


def check(
    repo: Repo, *, full: bool = False, report: Report | None = None, progress: Progress = SILENT
) -> Iterator[Finding]:
    """Yield everything that is wrong, or worth knowing; `report` counts what was looked at."""
    found = examine(repo, full=full, progress=progress)
    if report is not None:
        for name in Report.__slots__:
            setattr(report, name, getattr(found.report, name))
    yield from found.findings


def examine(
    repo: Repo, *, full: bool = False, data: Fraction = NONE, progress: Progress = SILENT
) -> Examined:
    """Look at everything; read the next `data` percent of all stored bytes, or with `full` all."""
    for _ in range(LOOKS):
        looking = _Check(repo, full, data, progress)
        looking.run()
        # What a collection took away meanwhile is no error: only a root that stands still counts.
        if not looking.found.report.errors or not _moved_on(repo):
            break
    if looking.next is not None:
        repo.backend.write_hint(HINT, str(looking.next))
    return looking.found


def _moved_on(repo: Repo) -> bool:
    try:
        seen = repo.root.seq
        return repo.refresh().seq != seen
    except CasError:
        return False


class _Check:
    """One check at work, against one root."""

    def __init__(self, repo: Repo, full: bool, data: Fraction, progress: Progress) -> None:
        self._repo = repo
        self._full = full
        self._data = data
        self._progress = progress
        self._damaged: dict[ObjectId, Finding] = {}
        self._halves: list[tuple[ObjectId, Finding]] = []
        self._packs: list[Finding] = []
        self.found = Examined()
        self.next: Position | None = None
        self._report = self.found.report

    def run(self) -> None:
        """Look at everything."""
        self.found.findings += self._findings()
        self._report.errors = sum(finding.severity == ERROR for finding in self.found.findings)

    def _findings(self) -> Iterator[Finding]:
        yield from self._format()
        yield from self._roots()
        try:
            root = self._repo.refresh()
        except CasError as error:
            told = f"{error}; `cas fsck --repair` goes on from what can be read"
            yield Finding(ERROR, "root", "newest", told)
            return
        if lost := self._repo.lost():
            self.found.damage.lost_root = lost
            why = "it was the newest, and is gone: restore it from a copy, or use --repair"
            if lost not in self.found.damage.roots:
                yield Finding(ERROR, "root", root_key(lost), why)
        yield from (
            Finding(ERROR, "copy", root_key(skipped.seq), f"{skipped.why}: root {root.seq} is open")
            for skipped in self._repo.skipped
        )
        self._report.refs = len(root.refs)
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
        try:
            config.load(self._repo)
            config.policy(self._repo)
        except CasError as error:
            yield Finding(ERROR, "config", CONFIG, str(error))

    def _roots(self) -> Iterator[Finding]:
        """Check each root that is kept, its snapshots, and that each names the one before."""
        numbers = sorted(roots.numbers(self._repo.backend))
        named: set[str] = set()
        wrong: list[tuple[int, Finding]] = []
        accepted = 0
        before: Root | None = None
        watch = Watch()
        for seq in numbers:
            try:
                found = roots.read(self._repo.backend, seq, before)
            except CasError as error:
                wrong.append((seq, Finding(ERROR, "root", root_key(seq), str(error))))
                before = None
                continue
            self._report.roots += 1
            bases = (found.refs_base, found.packs_base)
            named |= {snapshot_key(base.name) for base in bases if base is not None}
            wrong += [(seq, finding) for finding in _link(before, found)]
            if found.operation.what == ACCEPT:
                accepted = seq
            watch.step(before, found)
            before = found
        yield from self._chain(wrong, accepted)
        self.found.damage.vanished += watch.found
        for one in watch.found:
            told = f"root {one.seq} had it at {one.was}, and no operation since says why it is not"
            yield Finding(ERROR, "vanished-ref", one.name, told)
        for info in self._repo.backend.scan(SNAPSHOTS):
            if info.key not in named:
                yield Finding(INFO, "stray-snapshot", info.key, "no root names it")

    def _chain(self, wrong: list[tuple[int, Finding]], accepted: int) -> Iterator[Finding]:
        """Tell what is wrong with roots; what somebody has accepted since is no error any more."""
        for seq, finding in wrong:
            if seq > accepted:
                self.found.damage.roots.append(seq)
                yield finding
            else:
                detail = f"{finding.detail}; given up by operation {accepted}"
                yield replace(finding, severity=WARNING, detail=detail)

    def _open_packs(self, root: Root) -> tuple[PinnedStore, list[Finding]]:
        good: list[PackInfo] = []
        bad: list[Finding] = []
        for pack in root.packs:
            finding = packcheck.structure(self._repo.backend, pack)
            if finding is None:
                good.append(pack)
            else:
                bad.append(finding)
                self.found.damage.packs.append(pack)
            self._report.packs += 1
            self._report.bytes += pack.length
        return PinnedStore(self._repo.backend, good), bad

    def _records(self, store: PinnedStore, root: Root) -> None:
        """Check each record; what is wrong is told when it is known who needs it."""
        from cas.repo.check.recordcheck import Records

        checker = Records(store, self._repo.backend, root.tombstones)
        self._progress.start("check records", total=len(checker.table))
        data = self._window(checker)
        for id, finding in checker.findings(data, self._progress, rebuild=self._full):
            if finding.what == packcheck.PACK:
                self._packs.append(finding)
            elif finding.what == packcheck.HALF:
                self._halves.append((id, finding))
            else:
                self._damaged[id] = finding
        self.found.damage.spoiled |= checker.spoiled
        self.found.damage.absent |= checker.absent
        self.found.damage.helpless |= checker.helpless
        self._report.read_bytes = checker.read_bytes
        self._progress.finish()

    def _window(self, checker: "Records") -> "Numbers":
        """Return the records whose bytes are read."""
        from cas.repo.check.window import Position, window

        share = ALL if self._full else self._data
        start = Position.parse(self._repo.backend.read_hint(HINT))
        found = window(checker.table, share, start)
        if self._data and not self._full:
            self.next = found.next
        return found.records if share else found.records[:0]

    def _live(self, store: PinnedStore, root: Root) -> Iterator[Finding]:
        """Go over everything that is kept; where all is well, many objects at once."""
        if not self._damaged and not self._halves:
            try:
                live = mark(store, root.refs, root.tombstones, progress=self._progress)
            except CasError:
                pass  # the walk says what it is, and goes on
            else:
                self._report.objects, self._report.commits = live.objects, live.commits
                self._report.whole_commits = live.commits
                return
        yield from self._walk(store, root)

    def _walk(self, store: PinnedStore, root: Root) -> Iterator[Finding]:
        """Walk over everything that is kept, and name what is wrong."""
        troubles: list[Trouble] = []
        walk = Walk(store, root.refs, root.tombstones, trouble=troubles.append)
        self._progress.start("walk")
        for visit in walk.visits():
            self._report.objects += 1
            self._report.commits += visit.kind is Kind.COMMIT
            self._progress.advance()
        self._progress.finish()
        bad = {trouble.id for trouble in troubles}
        self.found.damage.missing |= {
            trouble.id for trouble in troubles if isinstance(trouble.error, NotFoundError)
        }
        self.found.losses += losses.by_commit(store, root, bad)
        lost_commits = sum(trouble.kind is Kind.COMMIT for trouble in troubles)
        self._report.commits += lost_commits
        self._report.whole_commits = self._report.commits - len(self.found.losses)
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
                self.found.damage.indexes.append(info.key)
                detail = f"{problem}; delete the file, it is made again when it is needed"
                yield Finding(ERROR, "index", info.key, detail)

    def _strays(self, root: Root) -> Iterator[Finding]:
        """Tell of pack files that the root does not list; `gc` takes them."""
        listed = {info.name for info in root.packs}
        condemned = {info.name: info for info in root.condemned}
        for name in sorted(listed & condemned.keys()):
            yield Finding(ERROR, "pack", name.hex(), "it is listed and condemned at once")
        for info in (file.info for file in pack_files(self._repo.backend)):
            if info.name in condemned:
                yield Finding(INFO, "condemned-pack", info.key, "an unfinished gc left it")
            elif info.name not in listed:
                yield Finding(INFO, "orphan-pack", info.key, "no root lists it")


def _link(before: Root | None, found: Root) -> Iterator[Finding]:
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
