"""Whatever happens to stored files: `fsck --full` finds it, and no read gives wrong bytes.

Every damage is done to a small repository that has one of everything. What must still be read is
told by which bytes are still the same. What fsck need not find is listed here, and proven harmless.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.codec.base import CodecTag
from cas.errors import CasError
from cas.ids import ObjectId
from cas.objects.kind import Kind
from cas.repo.check import fsck
from cas.repo.check.fsck import Finding
from cas.repo.layout import CACHE, CONFIG, FORMAT, INDEX, JOURNALS, PACKS, ROOTS, SNAPSHOTS
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.repo.trees import ingest
from cas.repo.trees.statcache import key_of, open_statcache
from cas.store import index, packed
from cas.store.pack import Footer
from cas.tracking.journals import journalcheck
from cas.tracking.journals.journal import read_journal, scan_frames
from cas.tracking.journals.state import RunState
from tests.support.builders import repository
from tests.support.damage import Changed, Damage, damaged, damages
from tests.support.specimen import Specimen, build
from tests.support.torture import amount, tell

# A root that cannot be read may be passed over for an older one, which is said so.
pytestmark = pytest.mark.filterwarnings("ignore:this copy was taken")
SHARDS = 8
DAMAGES = amount(160, 104_000)
SEVERE = {fsck.ERROR, fsck.WARNING}
# Bytes that every writer leaves zero and every reader passes over, from the start and the end.
PADDING = {
    PACKS: ({6, 7}, {1, 2, 3}),
    ROOTS: ({5, 6, 7}, set[int]()),
    SNAPSHOTS: ({5, 6, 7}, set[int]()),
    INDEX: ({5, 6, 7}, {1, 2, 3}),
}


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Specimen]:
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else tmp_path_factory.getbasetemp()
    folder = base / f"cas-damage-{os.getpid()}-{random.SystemRandom().randrange(1 << 30)}"
    folder.mkdir()
    yield build(folder)
    shutil.rmtree(folder)


def findings(specimen: Specimen) -> list[Finding]:
    """Everything that the command would tell."""
    try:
        repo = specimen.open()
        found = list(fsck.check(repo, full=True))
    except CasError as error:
        return [Finding(fsck.ERROR, "repository", str(specimen.path), str(error))]
    try:
        found += journalcheck.findings(repo)
    except CasError as error:
        found.append(Finding(fsck.ERROR, "journals", str(specimen.path), str(error)))
    return [finding for finding in found if finding.severity in SEVERE]


def is_harmless(specimen: Specimen, changed: Changed) -> bool:
    """Say whether fsck may pass over it: nothing but time or history rests on these bytes."""
    return all(_harmless(specimen, key, now) for key, now in changed.items())


def _harmless(specimen: Specimen, key: str, now: bytes | None) -> bool:
    was, folder = specimen.files[key], key.partition("/")[0]
    if key == CONFIG:
        return now is None or _is_map(now)  # whoever wrote it, by hand or not, may have meant that
    if now is None:
        # An index file is made again; the history may begin later, which gc sees to as well.
        return folder == INDEX.strip("/") or key == f"{ROOTS}{1:016d}"
    if folder == JOURNALS:
        return was.startswith(now) and _ends_a_frame(specimen, now)
    for prefix, (front, back) in PADDING.items():
        if key.startswith(prefix) and len(now) == len(was):
            places = {
                at for at, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1]
            }
            return places <= front | {len(was) - at for at in back}
    return False


def _is_map(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except ValueError:
        return False


def _ends_a_frame(specimen: Specimen, raw: bytes) -> bool:
    """Say whether a journal's end was lost as if it had never been written."""
    ends = [end for _, end in scan_frames(raw)]
    return bool(ends) and ends[-1] == len(raw)


def misread(specimen: Specimen, changed: Changed) -> Iterator[str]:
    """Read all that there is; yield what came out wrong, or did not come out and should have."""
    vital = specimen.vital & changed.keys()
    try:
        repo = specimen.open()
        refs = repo.refresh().refs
    except CasError as error:
        if not vital:
            yield f"cannot be opened: {error}"
        return
    if refs != specimen.refs[-1] and not (vital and refs in specimen.refs):
        yield "there are other refs"
    must = set[ObjectId]() if vital else specimen.readable(changed)
    for id in specimen.objects:
        yield from _misread_object(specimen, repo, id, id in must)
    for key in specimen.frames:
        yield from _misread_journal(specimen, key, key in changed)


def _misread_object(specimen: Specimen, repo: Repo, id: ObjectId, must: bool) -> Iterator[str]:
    kind, data = specimen.objects[id]
    try:
        found = repo.store.read(kind, id)
    except CasError as error:
        if must:
            yield f"{kind.name} {id} was not hit, and is not read: {error}"
        return
    if found != data:
        yield f"{kind.name} {id} came out wrong"


def _misread_journal(specimen: Specimen, key: str, changed: bool) -> Iterator[str]:
    frames = specimen.frames[key]
    try:
        journal = read_journal(specimen.path / key)
        RunState("exp/a", "runs/exp/a", bytes(16)).replay(journal.frames)
    except CasError as error:
        if not changed:
            yield f"{key} was not hit, and is not read: {error}"
        return
    found = (journal.header, *journal.frames)
    if found != frames[: len(found)] or (len(found) < len(frames) and not changed):
        yield f"{key} came out wrong"


def wrong(specimen: Specimen, damage: Damage) -> list[str]:
    """Do a damage; return what is wrong with how it is taken."""
    with damaged(specimen.path, specimen.files, damage):
        found = list(misread(specimen, damage.changed))
        if not findings(specimen) and not is_harmless(specimen, damage.changed):
            found.append("fsck is silent")
    if FORMAT in damage.changed:
        specimen.open().refresh()  # the file has another time now: without a look it is a copy
    return [f"{damage.what}: {problem}" for problem in found]


def test_it_is_whole_before(specimen: Specimen) -> None:
    assert not findings(specimen)
    assert specimen.readable({}) == specimen.objects.keys()
    assert not list(misread(specimen, {}))


@pytest.mark.torture
@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_damage_is_found_and_stays_where_it_is(specimen: Specimen, shard: int) -> None:
    for damage in damages(shard, specimen.files, DAMAGES // SHARDS):
        assert not wrong(specimen, damage)
    tell(f"damage, part {shard}: {DAMAGES // SHARDS:,}, all found or harmless, no wrong byte read")


class TestPlanted:
    """What the kit rests on is felt when it is left out."""

    def found(self, specimen: Specimen, damage: Damage) -> str:
        problems = wrong(specimen, damage)
        assert problems, "nothing was noticed"
        return problems[0]

    def flipped(self, specimen: Specimen, key: str, at: int) -> Damage:
        raw = bytearray(specimen.files[key])
        raw[at] ^= 1
        return Damage(f"a bit of {key}", {key: bytes(raw)})

    def body(self, specimen: Specimen, kind: Kind, codec: int) -> Damage:
        """A bit in the body of a record of this kind."""
        found = (r for r in specimen.records if (r.kind, r.codec) == (kind, codec))
        record = next(found)
        return self.flipped(specimen, record.key, record.stop - 1)

    def test_reading_without_comparing_the_id(
        self, specimen: Specimen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trusting = {kind: lambda data: Anything() for kind in Kind}
        monkeypatch.setattr(packed, "ID_OF", trusting)
        problem = self.found(specimen, self.body(specimen, Kind.BLOB, CodecTag.RAW))
        assert "came out wrong" in problem

    def test_checking_without_reading(
        self, specimen: Specimen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = fsck.check
        monkeypatch.setattr(fsck, "check", lambda repo, full: whole(repo, full=False))
        problem = self.found(specimen, self.body(specimen, Kind.BLOB, CodecTag.RAW))
        assert problem.endswith("fsck is silent")

    def test_not_looking_at_old_roots(
        self, specimen: Specimen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        damage = self.flipped(specimen, f"{ROOTS}{2:016d}", 60)
        assert not wrong(specimen, damage)
        monkeypatch.setattr(fsck, "check", lambda repo, full: iter(()))
        assert self.found(specimen, damage).endswith("fsck is silent")

    def test_one_damage_that_reaches_further(
        self, specimen: Specimen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pack whose footer is damaged must not be lost as a whole."""
        keys = [key for key in specimen.files if key.startswith(PACKS)]
        hit = [self.flipped(specimen, key, len(specimen.files[key]) - 60) for key in keys]
        assert not any(wrong(specimen, damage) for damage in hit)
        monkeypatch.setattr(index, "rebuilt_footer", lambda *_: Footer(b""))
        problems = [problem for damage in hit for problem in wrong(specimen, damage)]
        # Index files know most packs; the newest ones stand in none.
        assert any("was not hit, and is not read" in problem for problem in problems)

    def test_a_journal_that_nobody_checks(
        self, specimen: Specimen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (key,) = specimen.frames
        damage = self.flipped(specimen, key, len(specimen.files[key]) // 2)
        assert not wrong(specimen, damage)
        monkeypatch.setattr(journalcheck, "findings", lambda repo: iter(()))
        assert self.found(specimen, damage).endswith("fsck is silent")


class Anything(bytes):
    """An id that is equal to every other."""

    __slots__ = ()
    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def test_a_damaged_cache_changes_nothing_but_time(tmp_path: Path) -> None:
    """What the stat cache says is not believed when a bit of it is another one."""
    repo, folder = repository(tmp_path / "home"), tmp_path / "files"
    for number in range(30):
        path = folder / f"{number % 3}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d\n" % number)
        os.utime(path, ns=(10**18, 10**18))

    def stored() -> ObjectId:
        with open_statcache(repo) as cache:
            entry = transact(repo, "add", lambda tx: ingest.add(tx.writer, folder, cache=cache))
            cache.save()
            return entry.id

    time.sleep(0.1)  # what is as new as the cache is not noted down
    right = stored()
    with open_statcache(repo) as known:
        place = key_of(os.fsencode(folder / "1"), "full")
        assert known.find(place, time.time_ns()) is not None
    (cache,) = (path for path in (repo.path / CACHE).iterdir() if path.name.endswith(".db"))
    raw, rng = cache.read_bytes(), random.Random(1)
    for _ in range(amount(60, 2000)):
        changed = bytearray(raw)
        for _ in range(rng.choice((1, 1, 8))):
            changed[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        cache.write_bytes(bytes(changed[: rng.choice((len(raw), rng.randrange(len(raw))))]))
        assert stored() == right
