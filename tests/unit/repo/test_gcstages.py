"""A plan of gc is carried out in steps; after each of them all that is listed is whole."""

import os
from pathlib import Path
from typing import Any

import pytest

from cas.errors import StorageFullError
from cas.ids import CommitId
from cas.repo import root as roots
from cas.repo.check import fsck
from cas.repo.collect import gc, gcplan, gcstages, replace
from cas.repo.collect.gcplan import GcPlan
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction
from cas.store.pack import PackClass
from cas.store.pinned import PinnedStore
from cas.store.writer import ObjectWriter
from tests.support.builders import (
    Files,
    RunBuilder,
    commit_files,
    noise,
    pack_files,
    read_tree,
    reopened,
    repository,
    set_ref,
    write_files,
)
from tests.support.crashing import Quick


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return reopened(repository(tmp_path), Quick())


def troubles(repo: Repo) -> list[fsck.Finding]:
    found = fsck.check(reopened(repo, Quick()), full=True)
    return [one for one in found if one.severity != fsck.INFO]


def collected(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, *, room: int, small: int = 0
) -> tuple[GcPlan, list[int]]:
    """Collect with little room, looking at everything after each root; tell what copies took."""
    copies: list[int] = []
    swap = replace.swap

    def watched(repo: Repo, base: Any, operation: Any, leaving: Any, coming: Any) -> Any:
        new = list(coming)
        after = swap(repo, base, operation, leaving, new)
        copies.append(sum(info.length for info in new))
        assert not troubles(repo)
        return after

    with monkeypatch.context() as patch:
        patch.setattr(gc, "swap", watched)
        patch.setattr(gcstages, "room_in", lambda _: room)
        patch.setattr(gcstages, "SMALL", small)
        return gc.execute(repo, gc.plan(repo)), copies


def pruned(repo: Repo, runs: int = 6) -> list[CommitId]:
    """Return the checkpoints that stay, one of each run."""
    kept = []
    for number in range(runs):
        run = RunBuilder(repo, f"exp/{number}")
        for step in range(2):
            run.checkpoint(step, {"w": noise(number * 10 + step, 300_000)}, value=1.0)
        set_ref(repo, f"{HOLDS}{run.ids[0]}", None)
        kept.append(run.ids[1])
    return kept


def test_little_is_done_at_once(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned(repo)
    _, copies = collected(repo, monkeypatch, room=10**9, small=gcstages.SMALL)
    assert len(copies) == 1


def test_what_is_dead_goes_before_data_is_copied(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 300_000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    commit_files(repo, {"a": noise(1, 300_000)})
    pruned(repo, 2)
    before = sum(pack_files(repo).values())
    done, copies = collected(repo, monkeypatch, room=10**9)
    assert len(copies) == 2
    assert copies[0] < 10_000
    assert copies[1] > 300_000
    assert done.freed_bytes == before - sum(pack_files(repo).values())
    assert gc.plan(repo).empty


def test_metadata_goes_in_parts_where_there_is_no_room_for_all(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that goes must leave what the others name."""
    monkeypatch.setattr(gcplan, "MANY", 100)
    kept = pruned(repo)
    before = sum(pack_files(repo).values())
    largest = max(
        one.copied_bytes for one in gc.plan(repo).rewrites if one.pack.kind is PackClass.METADATA
    )
    done, copies = collected(repo, monkeypatch, room=largest + 100)
    assert len(copies) >= 4
    assert max(copies) < largest + 1000
    assert done.freed_bytes == before - sum(pack_files(repo).values()) > 5 * 300_000
    assert gc.plan(repo).empty
    for id in kept:
        payload = repo.commit(id).payload
        assert payload is not None
        assert read_tree(repo, payload)


def test_the_bug_that_the_step_by_step_check_finds(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking a part without what the rest names leaves trees whose blobs are gone."""
    monkeypatch.setattr(gcplan, "MANY", 100)
    monkeypatch.setattr(gcstages, "closure", lambda *_: iter(()))
    file = noise(1, 300_000)
    commit_files(repo, {"r": b"r"}, ref="tags/r")  # not in the pack that goes
    for number in range(4):
        extra = {"e": noise(number, 2000 + number)}
        commit_files(repo, {"r": b"r"}, payload={"w": file, **extra}, ref=f"tags/{number}")
    for name, id in repo.refresh().refs.items():
        if name.startswith(HOLDS):
            set_ref(repo, f"{HOLDS}{id}", None)
    with pytest.raises(AssertionError):
        collected(repo, monkeypatch, room=600)


def test_data_goes_in_parts(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        files = {name: noise(10 * number + n, 300_000) for n, name in enumerate("abc")}
        commit_files(repo, files, ref="tags/x")
        set_ref(repo, "tags/x", None)
        commit_files(repo, {"a": files["a"]}, ref=f"tags/{number}")
    done, copies = collected(repo, monkeypatch, room=310_000)
    assert len([size for size in copies if size > 300_000]) == 3
    assert done.freed_bytes > 6 * 300_000
    assert gc.plan(repo).empty


def test_what_a_step_left_to_another_copy_lives_on_there(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step gives up one of two copies, because the pack of the other one stays for now."""
    shared = noise(1, 300_000)
    commit_files(repo, {"a": shared, "x": noise(3, 1_500_000)}, ref="tags/x")
    others = {"c": noise(4, 500_000), "y": noise(5, 100_000)}
    duplicate(repo, {"a": shared, **others})
    kept = {"a": shared, "c": others["c"]}
    id = commit_files(repo, kept, ref="tags/kept")
    set_ref(repo, "tags/x", None)
    done, _ = collected(repo, monkeypatch, room=600_000)
    assert done.freed_bytes > 1_500_000
    assert not any(rewrite.pack.kind is PackClass.DATA for rewrite in done.rewrites)
    assert read_tree(reopened(repo, Quick()), repo.commit(id).tree) == kept


def duplicate(repo: Repo, files: Files) -> None:
    """Store files once more, as writers that do not see each other do."""
    root = repo.refresh()
    writer = ObjectWriter(repo.backend, PinnedStore(repo.backend, []), lambda: os.urandom(16))
    write_files(Transaction(repo, root, writer), files)
    packs = root.packs + tuple(writer.seal())
    repo.adopt(
        roots.publish(repo.backend, root.follow(root.operation, packs=packs), os.urandom(16))
    )
    repo.store.refresh()


def test_where_nothing_fits_it_says_how_much_is_needed(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 300_000)})
    commit_files(repo, {"a": noise(1, 300_000)}, ref="tags/a")
    set_ref(repo, "heads/main", None)
    with pytest.raises(StorageFullError, match=r"needs room for 3\d\d,\d\d\d bytes"):
        collected_without_light(repo, monkeypatch)
    assert not troubles(repo)


def collected_without_light(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcstages, "room_in", lambda _: 1000)
    monkeypatch.setattr(gcstages, "SMALL", 0)
    real = gcstages.step
    monkeypatch.setattr(
        gcstages, "step", lambda repo, plan, room, *, light: real(repo, plan, room, light=False)
    )
    gc.execute(repo, gc.plan(repo))
