"""A disk that is really full: what was there stays whole, and prune and gc give space back."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cas.errors import StorageFullError
from cas.repo.check import fsck
from cas.repo.collect import gc, reserve
from cas.repo.layout import RESERVE
from cas.repo.repo import Repo
from cas.repo.retain import prune
from cas.repo.retain.retention import Keep
from tests.support.builders import (
    Clock,
    RunBuilder,
    commit_files,
    noise,
    pack_files,
    read_tree,
    reopened,
)
from tests.support.torture import amount

MIB = 1024 * 1024
DISK = 24 * MIB


def mounted(folder: Path) -> bool:
    if os.geteuid() != 0:
        return False
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    return subprocess.run(["mount", *options], check=False, capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder):
        pytest.skip("only root can mount a small file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def made(disk: Path) -> Repo:
    return reserve.made(Repo.create(disk / ".cas", who="ada@host", clock=Clock()))


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, left: int = 0) -> None:
    """Fill the disk with what is not ours, but for some bytes."""
    with (disk / "ballast").open("ab") as file:
        try:
            while (room := free(disk) - left) > 0:
                file.write(b"x" * min(MIB, room))
                file.flush()
        except OSError:
            pass


def whole(repo: Repo) -> bool:
    found = fsck.check(reopened(repo), full=True)
    return not [one for one in found if one.severity != fsck.INFO]


def trained(repo: Repo, steps: int = 8) -> RunBuilder:
    run = RunBuilder(repo, "exp/one")
    for step in range(steps):
        run.checkpoint(step, {"w": noise(step, MIB), "b": noise(100 + step, 3000)}, value=1.0)
    return run


def test_a_commit_that_does_not_fit_leaves_all_as_it_was(disk: Path) -> None:
    repo = made(disk)
    kept = commit_files(repo, {"a": noise(1, MIB)})
    fill(disk, left=300_000)
    for number in range(amount(2, 20)):
        with pytest.raises(StorageFullError):
            commit_files(repo, {"b": noise(2 + number, 2 * MIB)}, ref="tags/b")
    assert set(pack_files(repo)) == {info.key for info in repo.root.packs}, "what would fill it up"
    assert whole(repo)
    assert "tags/b" not in reopened(repo).refresh().refs
    assert read_tree(repo, repo.commit(kept).tree) == {"a": noise(1, MIB)}
    assert repo.backend.size(RESERVE) == reserve.SIZE, "only what frees space may spend it"


@pytest.mark.torture
def test_a_full_disk_can_be_pruned_and_collected(disk: Path) -> None:
    repo = made(disk)
    run = trained(repo)
    fill(disk)
    assert free(disk) == 0
    with pytest.raises(StorageFullError):
        commit_files(repo, {"b": noise(2, 5000)}, ref="tags/b")
    again = reopened(repo)
    gone = prune.execute(again, prune.plan(again, Keep(last=1)))
    assert len(gone) == 7
    before = sum(pack_files(again).values())
    done = gc.execute(again, gc.plan(again))
    assert before - sum(pack_files(again).values()) == done.freed_bytes > 7 * MIB
    assert whole(repo)
    payload = repo.commit(run.ids[-1]).payload
    assert payload is not None
    assert read_tree(repo, payload)
    commit_files(repo, {"b": noise(2, 5000)}, ref="tags/b")


def test_the_reserve_comes_back_when_there_is_room(disk: Path) -> None:
    repo = made(disk)
    run = trained(repo, 3)
    fill(disk)
    assert reserve.give_up(repo)
    (disk / "ballast").unlink()
    gc.execute(repo, gc.plan(repo))
    assert repo.backend.size(RESERVE) == reserve.SIZE
    assert run.ids


@pytest.mark.torture
def test_half_dead_packs_are_collected_in_as_little_room_as_there_is(disk: Path) -> None:
    """Copies of all that lives on would not fit beside it."""
    repo = made(disk)
    parts = {f"p{number}": noise(number, MIB) for number in range(4)}
    ids = []
    for number in range(3):
        files = {name: noise(10 * number + n, MIB) for n, name in enumerate(parts)}
        commit_files(repo, files, ref=f"tags/all{number}")
        ids.append(commit_files(repo, dict(list(files.items())[:2]), ref=f"tags/half{number}"))
    for number in range(3):
        drop(repo, f"tags/all{number}")
    fill(disk, left=5 * MIB // 2)
    before = sum(pack_files(repo).values())
    gc.execute(repo, gc.plan(repo))
    assert before - sum(pack_files(repo).values()) > 5 * MIB
    assert whole(repo)
    for number, id in enumerate(ids):
        files = {f"p{n}": noise(10 * number + n, MIB) for n in range(2)}
        assert read_tree(repo, repo.commit(id).tree) == files


def drop(repo: Repo, ref: str) -> None:
    from cas.repo.transaction import transact

    reserve.spending(repo, lambda: transact(repo, "ref", lambda tx: tx.set_ref(ref, None)))


def test_without_the_reserve_a_full_disk_cannot_be_pruned(disk: Path) -> None:
    """The bug that the others are there to find."""
    repo = made(disk)
    trained(repo)
    reserve.give_up(repo)
    fill(disk)
    with pytest.raises(StorageFullError):
        prune.execute(repo, prune.plan(repo, Keep(last=1)))
    assert whole(repo)


def test_a_disk_that_is_filled_again_and_again_can_be_collected_each_time(disk: Path) -> None:
    """What gc frees may be too little for the whole reserve, and is full soon."""
    repo = made(disk)
    run = trained(repo, 6)
    for _ in range(3):
        fill(disk)
        with pytest.raises(StorageFullError):
            commit_files(repo, {"b": noise(2, 5000)}, ref="tags/b")
        again = reopened(repo)
        prune.execute(again, prune.plan(again, Keep(last=1)))
        gc.execute(again, gc.plan(again))
        assert 0 < (repo.backend.size(RESERVE) or 0) < reserve.SIZE
        run.repo = reopened(repo)
        before = len(run.ids)
        with suppress(StorageFullError):
            while True:
                step = len(run.ids)
                run.checkpoint(step, {"w": noise(step, MIB)}, value=1.0)
        assert len(run.ids) > before
    assert whole(repo)
