"""A repair that stops anywhere has taken nothing away; the next one finishes the work."""

from pathlib import Path

import pytest

from cas.ids import blob_id
from cas.objects.kind import Kind
from cas.repo.check import fsck, repair
from cas.repo.collect import gc
from cas.repo.repo import Repo
from tests.support.builders import Clock, RunBuilder, noise, reopened, repository
from tests.support.crashing import Quick, changes, stops
from tests.support.faulty import Crash

LOST, KEPT = noise(0, 300_000), noise(1, 300_000)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a damaged record, a damaged footer and a damaged index file."""
    repo = reopened(repository(tmp_path_factory.mktemp("origin")), Quick())
    run = RunBuilder(repo, "exp/one")
    run.checkpoint(0, {"w": LOST}, value=1.0)
    run.checkpoint(1, {"w": KEPT}, value=1.0)
    run.finish()
    lost, kept = (repo.store.locate(blob_id(data)) for data in (LOST, KEPT))
    assert lost is not None
    assert kept is not None
    for key, at in ((lost.pack.key, lost.row.offset + 500), (kept.pack.key, -90)):
        path = repo.path / key
        raw = bytearray(path.read_bytes())
        raw[at] ^= 1
        path.write_bytes(raw)
    repo.backend.put_new("index/00.idx", b"CASI nonsense")
    return repo.path


def mend(repo: Repo) -> None:
    repair.execute(repo, repair.plan(repo, fsck.examine(repo, full=True).damage))


def give_up(repo: Repo) -> None:
    mend(repo)
    repair.accept(repo, fsck.examine(repo, full=True).damage, "lost")


def errors(repo: Repo) -> list[fsck.Finding]:
    found = fsck.examine(reopened(repo, Quick()), full=True).findings
    return [finding for finding in found if finding.severity == fsck.ERROR]


@pytest.mark.parametrize("after", [False, True])
def test_it_may_stop_at_any_change(origin: Path, tmp_path: Path, after: bool) -> None:
    numbers = changes(origin, tmp_path / "work", give_up)
    assert len(numbers) > 20
    for path, said in stops(origin, tmp_path / "work", give_up, numbers[::4], Crash, after=after):
        repo = Repo.open(path, who="ada", clock=Clock(), ops=Quick())
        assert repo.store.read(Kind.BLOB, blob_id(KEPT)) == KEPT, said
        mend(reopened(repo, Quick()))
        left = errors(repo)
        assert {finding.name for finding in left} <= {f"blob {blob_id(LOST)}"}, said
        give_up(reopened(repo, Quick()))
        assert errors(repo) == [], said
        gc.execute(reopened(repo, Quick()), gc.plan(reopened(repo, Quick())))
        assert errors(repo) == [], said
        assert reopened(repo).store.read(Kind.BLOB, blob_id(KEPT)) == KEPT, said
        repo.backend.close()
