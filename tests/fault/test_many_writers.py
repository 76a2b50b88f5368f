"""Many processes that write at once: nothing is lost, nothing is torn, nobody is shown a lock."""

import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cas.ids import CommitId, ObjectId
from cas.repo.check import fsck
from cas.repo.layout import HOLDS
from cas.tracking.checkpoints.checkpoint import load
from tests.support.builders import reopened, repository
from tests.support.hosts import Process, state_at, worker
from tests.support.runs import checkpoints, opened
from tests.support.torture import amount, seconds
from tests.support.writers import prepare, race, unlinearizable

pytestmark = pytest.mark.slow  # many processes


@pytest.mark.torture
def test_ref_updates_happen_one_after_the_other(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    prepare(repo)
    first = repo.refresh().seq
    processes, updates = amount(4, 8), amount(25, 5000)
    seen, _ = race(repo.path, processes, updates)
    assert sum(1 for one in seen if one.ref) == processes * updates
    assert repo.refresh().seq == first + processes * updates
    assert unlinearizable(reopened(repo), seen, first) is None


def test_a_writer_that_does_not_look_again_is_found_out(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    prepare(repo)
    first = repo.refresh().seq
    for _ in range(5):
        seen, _ = race(repo.path, 4, 25, planted=True)
        if (found := unlinearizable(reopened(repo), seen, first)) is not None:
            assert "an update is lost" in found
            return
        first = repo.refresh().seq
    pytest.fail("no update was lost, or nobody saw it")


def test_what_was_acknowledged_and_is_not_there_is_found_out(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    prepare(repo)
    first = repo.refresh().seq
    seen, _ = race(repo.path, 1, 10)
    assert unlinearizable(repo, seen, first) is None
    ghost = next(one for one in seen if one.ref)
    assert unlinearizable(repo, [*seen, ghost], first) is not None
    stale = [one for one in seen if not one.ref]
    late = [one.began for one in seen if one.ref][-1]
    blind = [*seen, type(ghost)("w0", late, late + 1, first, "", "", 0)]
    assert stale
    assert "had been seen" in str(unlinearizable(repo, blind, first))


@pytest.mark.torture
def test_many_runs_save_checkpoints_while_others_collect(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    repository(shared)
    count = amount(4, 16)
    names = [f"r{number}" for number in range(count)]
    with ExitStack() as stack:
        runs = [stack.enter_context(worker("train", shared, name)) for name in names]
        keepers = [stack.enter_context(worker("keep", shared, 10**6)) for _ in range(2)]
        for one in [*runs, *keepers]:
            one.hear("ready")
        end = time.monotonic() + seconds(4, 600)
        while time.monotonic() < end:
            time.sleep(0.1)
        ended = [_ended(one) for one in [*runs, *keepers]]
    repo = opened(shared)
    refs = repo.refresh().refs
    saved = 0
    for name, said in zip(names, ended, strict=False):
        told = [line for line in said if line[0] == "saved"]
        tip = refs[f"runs/a/{name}"]
        assert repo.commit(tip).status == "finished"
        assert [str(id) for id, _ in checkpoints(repo, tip)] == [line[1] for line in told]
        for _, id, step in random.Random(0).sample(told, min(len(told), 20)):
            assert f"{HOLDS}{id}" in refs
            state = load(repo, CommitId(ObjectId.parse(id))).state
            assert state["model"] == {"w": state_at(name, step)}
        saved += len(told)
    assert saved >= count
    assert all(said[-1][1] > 0 for said in ended[count:])  # the others came through too
    trouble = [one for one in fsck.check(repo, full=True) if one.severity != fsck.INFO]
    assert not trouble


def _ended(process: Process) -> list[list[Any]]:
    """Let a process end, and insist that it had nothing to complain of."""
    said = process.stop()
    lines = [line for line in process.errors.splitlines() if line.strip()]
    bad = [line for line in lines if not line.startswith(("cas: run ", "cas: finished "))]
    assert not bad, bad
    return said
