"""A record that gc does not copy, because a pack that stays holds it too, is live from then on."""

from pathlib import Path

import pytest

from cas.ids import blob_id
from cas.objects.commit import COMMIT, Commit
from cas.repo.check import fsck
from cas.repo.collect import gc, gcstages
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.store.index import Place
from cas.store.pack import PackClass
from cas.store.packed import PackedStore
from tests.fault.test_concurrent import Between
from tests.support.builders import (
    commit_files,
    noise,
    read_tree,
    reopened,
    repository,
    set_ref,
    write_files,
)
from tests.support.crashing import Quick

TWICE = noise(1, 300)


@pytest.mark.parametrize("small", [0, gcstages.SMALL])
def test_the_only_record_left_of_something_live_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """Two writers store the same; the pack of metadata goes in a step before that of data."""
    monkeypatch.setattr(gcstages, "SMALL", small)
    repo = reopened(repository(tmp_path), Quick())
    slow = reopened(repo)
    slow.backend = Between(repo.path, ops=Quick())
    slow.store = PackedStore(slow.backend, lambda: slow.refresh().packs)
    slow.backend.meddle = lambda: two_commits(repo)
    shared = noise(2, 600_000)
    commit_files(slow, {"k": shared, "l": noise(3, 600_000), "x": TWICE}, ref="tags/b")
    commit_files(repo, {"k": shared}, ref="tags/c")
    for tag in ("tags/b", "tags/other"):
        set_ref(repo, tag, None)  # so both packs hold something dead
    kinds = {row.pack.kind for row in places(repo)}
    assert kinds == {PackClass.METADATA, PackClass.DATA}
    gc.execute(repo, gc.plan(repo))
    assert len(places(repo)) == 1
    fresh = reopened(repo)
    assert not [one for one in fsck.check(fresh, full=True) if one.severity != fsck.INFO]
    assert read_tree(fresh, fresh.commit(fresh.refresh().refs["tags/a"]).tree) == {"x": TWICE}


def two_commits(repo: Repo) -> None:
    def make(tx: Transaction) -> None:
        for name, files in {"a": {"x": TWICE}, "other": {"y": b"y" * 100}}.items():
            id = tx.record(Commit(kind=COMMIT, tree=write_files(tx, files)))
            tx.set_ref(f"tags/{name}", id)

    transact(repo, "two", make)


def places(repo: Repo) -> list[Place]:
    from cas.store.pinned import PinnedStore

    return list(PinnedStore(repo.backend, repo.refresh().packs).places(blob_id(TWICE)))
