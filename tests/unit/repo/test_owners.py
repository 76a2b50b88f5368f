"""What a run, experiment or artifact alone needs is what goes with it, to the byte."""

from pathlib import Path

import pytest

from cas.errors import RefusedError
from cas.ids import blob_id
from cas.objects.commit import Commit
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.collect import gc
from cas.repo.layout import HOLDS, RUNS
from cas.repo.repo import Repo
from cas.repo.report.owners import By, Owners, owners
from cas.repo.transaction import Transaction, transact
from cas.store.record import RecordHeader
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    repository,
    set_ref,
)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def trained(repo: Repo, name: str, seed: int, steps: int = 2) -> RunBuilder:
    run = RunBuilder(repo, name)
    for step in range(steps):
        tensors = {"w": noise(seed + step, 40_000), "frozen": noise(99, 30_000)}
        run.checkpoint(step, tensors, value=1.0)
    run.finish()
    return run


def own(found: Owners) -> dict[str, int]:
    return {owner.name: owner.own_bytes for owner in found.owners}


def records(repo: Repo) -> int:
    rows = [place.row for place in repo.store.index.starting(b"")]
    return sum(row.stored + RecordHeader.SIZE for row in rows)


def on_disk(repo: Repo) -> int:
    return sum(path.stat().st_size for path in repo.path.rglob("*") if path.is_file())


@pytest.mark.parametrize("by", By)
def test_the_parts_add_up_to_what_is_on_disk(repo: Repo, by: By) -> None:
    trained(repo, "exp/one", 0)
    trained(repo, "exp/two", 10)
    commit_files(repo, {"a": noise(20, 3000)})
    commit_files(repo, {"dead": noise(21, 3000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    found = owners(repo, by)
    assert found.total_bytes == on_disk(repo)
    assert found.unused_bytes > 3000
    assert min(own(found).values()) >= 0


def test_a_run_alone_needs_what_goes_with_it(repo: Repo) -> None:
    one = trained(repo, "exp/one", 0)
    trained(repo, "exp/two", 10)
    found = owners(repo, By.RUN)
    assert [owner.commits for owner in found.owners] == [2, 2]
    assert found.shared_bytes > 30_000
    expected = own(found)["exp/one"]
    assert 80_000 < expected < 90_000
    before = records(repo)
    for id in one.ids:
        if f"{HOLDS}{id}" in repo.refresh().refs:
            set_ref(repo, f"{HOLDS}{id}", None)
    set_ref(repo, f"{RUNS}exp/one", None)
    gc.execute(repo, gc.plan(repo))
    repo.store.refresh()
    assert before - records(repo) == expected


def test_an_experiment_alone_needs_what_its_runs_share(repo: Repo) -> None:
    trained(repo, "exp/one", 0)
    trained(repo, "exp/two", 10)
    trained(repo, "other/one", 20)
    by_run, by_experiment = owners(repo, By.RUN), owners(repo, By.EXPERIMENT)
    assert own(by_experiment).keys() == {"exp", "other"}
    two = own(by_run)["exp/one"] + own(by_run)["exp/two"]
    assert own(by_experiment)["exp"] >= two
    assert by_experiment.shared_bytes > 30_000


def test_what_a_tag_names_is_shared_with_it(repo: Repo) -> None:
    run = trained(repo, "exp/one", 0)
    alone = own(owners(repo, By.RUN))["exp/one"]
    set_ref(repo, "tags/best", run.ids[0])
    found = owners(repo, By.RUN)
    assert own(found)["exp/one"] < alone
    assert own(found)["tags"] == 0
    assert found.shared_bytes


def test_artifacts_are_told_apart_by_name(repo: Repo) -> None:
    for number in range(2):
        payload = {"model": {"w": noise(number, 9000)}, "artifacts": {"p.png": noise(7, 5000)}}
        commit_files(repo, {"a": b"%d" % number}, payload=payload, ref=f"tags/{number}")
    sizes = own(owners(repo, By.ARTIFACT))
    assert sizes["model"] > 18_000
    assert 5000 < sizes["artifacts/p.png"] < 6000
    assert sizes["history"] > 0


def test_a_pruned_payload_is_not_kept_by_anybody(repo: Repo) -> None:
    run = trained(repo, "exp/one", 0)
    before = owners(repo, By.RUN)
    set_ref(repo, f"{HOLDS}{run.ids[0]}", None)
    after = owners(repo, By.RUN)
    assert after.unused_bytes > before.unused_bytes + 40_000
    assert after.owners[0].commits == 1


def test_what_is_lost_is_named(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000)})
    place = repo.store.locate(blob_id(noise(1, 300_000)))
    assert place is not None
    path = repo.path / place.pack.key
    raw = path.read_bytes()
    path.write_bytes(raw[:100])
    with pytest.raises(RefusedError, match="cas fsck"):
        owners(repo, By.RUN)


def test_what_a_commit_misses_is_named(repo: Repo) -> None:
    def make(tx: Transaction) -> None:
        entry = Entry(b"gone", EntryKind.FILE, blob_id(b"gone"), 4, 0o644)
        commit = Commit(kind="commit", tree=build([entry], tx.writer.tree).id)
        tx.set_ref("tags/x", tx.record(commit))

    transact(repo, "commit", make)
    with pytest.raises(RefusedError, match="tags/x"):
        owners(repo, By.RUN)
