"""Processes that write, collect, drop and read at once, and that are killed at any moment."""

import random
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from cas.backend.local import LocalBackend
from cas.errors import BackendError, NotFoundError
from cas.ids import Buffer, TreeId, blob_id
from cas.objects.commit import COMMIT, PREVIOUS, Commit, Parent
from cas.repo.check import fsck
from cas.repo.collect import gc
from cas.repo.collect.gcplan import GcPlan
from cas.repo.layout import HOLDS, MODELS, SESSIONS, TAGS
from cas.repo.repo import Repo
from cas.repo.retain import prune
from cas.repo.retain.retention import Keep
from cas.repo.transaction import Transaction, transact
from cas.store.packed import PackedStore
from tests.support.actors import KEEP, Actor, check, opened
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    read_tree,
    reopened,
    repository,
    set_ref,
)
from tests.support.crashing import Quick

Acknowledged = dict[str, str]


def whole(path: Path, acknowledged: Acknowledged) -> None:
    """Insist that all that was acknowledged, and all that is kept, is there bit for bit."""
    repo = opened(path)
    refs = repo.refresh().refs
    for ref, said in acknowledged.items():
        if ref.startswith(KEEP):
            assert str(refs[ref]) == said, ref
    for name, id in refs.items():
        check(repo, id, payload=f"{HOLDS}{id}" in refs)
        assert name.startswith(HOLDS) or f"{HOLDS}{id}" in refs
    assert not troubles(repo)
    repo.backend.close()


def troubles(repo: Repo) -> list[fsck.Finding]:
    return [found for found in fsck.check(repo, full=True) if found.severity != fsck.INFO]


def tidy(path: Path) -> None:
    """Insist that the next collection leaves nothing behind."""
    repo = opened(path)
    gc.execute(repo, gc.plan(repo))
    assert gc.plan(repo).empty
    on_disk = {info.key for info in repo.backend.scan("packs/")}
    assert on_disk == {info.key for info in repo.root.packs}
    repo.backend.close()


@pytest.mark.slow
def test_writers_collectors_droppers_and_readers_at_once(tmp_path: Path) -> None:
    path = repository(tmp_path).path
    with ExitStack() as stack:
        writers = [stack.enter_context(Actor("write", path, seed, 60)) for seed in range(6)]
        others = {
            role: [stack.enter_context(Actor(role, path, seed)) for seed in range(count)]
            for role, count in {"collect": 2, "drop": 1, "look": 2}.items()
        }
        acknowledged: Acknowledged = {}
        for writer in writers:
            acknowledged.update(writer.finished())
        (path / "stop").touch()
        done = {role: total(actors, role) for role, actors in others.items()}
    assert all(done.values()), done
    for ref, id in opened(path).refresh().refs.items():
        assert not ref.startswith(MODELS) or acknowledged[ref] == str(id)
    whole(path, acknowledged)
    tidy(path)
    whole(path, acknowledged)


def total(actors: Iterable[Actor], role: str) -> int:
    return sum(int(dict(actor.finished())[role]) for actor in actors)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_processes_are_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    path = repository(tmp_path).path
    rng = random.Random(seed)
    acknowledged: Acknowledged = {}
    for number in range(5):
        roles = ["write", "write", "collect", rng.choice(["write", "collect", "drop"])]
        with ExitStack() as stack:
            actors = [
                stack.enter_context(Actor(role, path, seed * 1000 + number * 10 + n))
                for n, role in enumerate(roles)
            ]
            for actor in actors:
                acknowledged.update(actor.kill_after(rng.uniform(0.0, 0.15)))
        repo = opened(path)
        commit_files(repo, {"n": b"%d" % number}, ref=f"{TAGS}next")  # the next command just works
        set_ref(repo, f"{TAGS}next", None)
        repo.backend.close()
        if number % 2:
            tidy(path)
        whole(path, acknowledged)


class Between(LocalBackend):
    """A backend that does something just before a root is created, once."""

    meddle: Callable[[], None] | None = None
    stuck = False

    def delete(self, key: str) -> None:
        if self.stuck:
            raise BackendError("pulled the plug")
        super().delete(key)

    def put_new(self, key: str, data: Buffer) -> None:
        if key.startswith("roots/") and self.meddle is not None:
            meddle, self.meddle = self.meddle, None
            meddle()
        super().put_new(key, data)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return reopened(repository(tmp_path), Quick())


@pytest.fixture
def slow(repo: Repo) -> Repo:
    """A handle with caches of its own that others can overtake."""
    other = reopened(repo)
    other.backend = Between(repo.path, ops=Quick())
    other.store = PackedStore(other.backend, lambda: other.refresh().packs)
    return other


def overtake(slow: Repo, meddle: Callable[[], None]) -> None:
    assert isinstance(slow.backend, Between)
    slow.backend.meddle = meddle


def collect(repo: Repo) -> GcPlan:
    return gc.execute(repo, gc.plan(repo))


class TestStaleHandles:
    def test_a_hit_that_is_collected_before_the_root_is_written_anew(
        self, repo: Repo, slow: Repo
    ) -> None:
        files = {"a": noise(1, 300_000), "b": noise(2, 5000)}
        commit_files(repo, files, ref="tags/x")
        commit_files(repo, {"other": b"o"})
        set_ref(repo, "tags/x", None)
        overtake(slow, lambda: assert_frees(repo))
        id = commit_files(slow, {**files, "c": b"c"}, ref="tags/y")
        assert read_tree(reopened(repo), repo.commit(id).tree) == {**files, "c": b"c"}
        assert not troubles(repo)

    def test_own_packs_that_were_swept_before_the_root_are_written_anew(
        self, repo: Repo, slow: Repo
    ) -> None:
        def sweep() -> None:
            for session in (repo.path / SESSIONS).iterdir():
                session.unlink()  # where locks do not reach
            assert collect(repo).orphans

        overtake(slow, sweep)
        id = commit_files(slow, {"a": noise(1, 300_000)}, ref="tags/y")
        assert read_tree(reopened(repo), repo.commit(id).tree) == {"a": noise(1, 300_000)}
        assert not troubles(repo)

    def test_own_packs_that_were_condemned_and_are_still_there_are_written_anew(
        self, repo: Repo, slow: Repo
    ) -> None:
        other = reopened(repo)
        other.backend = Between(repo.path, ops=Quick())
        other.backend.stuck = True

        def condemn() -> None:
            for session in (repo.path / SESSIONS).iterdir():
                session.unlink()
            with pytest.raises(BackendError):
                collect(other)

        overtake(slow, condemn)
        id = commit_files(slow, {"a": noise(1, 300_000)}, ref="tags/y")
        collect(repo)
        assert read_tree(reopened(repo), repo.commit(id).tree) == {"a": noise(1, 300_000)}
        assert not troubles(repo)

    def test_a_parent_that_was_collected_is_not_named(self, repo: Repo, slow: Repo) -> None:
        gone = commit_files(repo, {"a": b"a"}, ref="tags/x")
        slow.commit(gone)
        set_ref(repo, "tags/x", None)
        collect(repo)
        with pytest.raises(NotFoundError):
            commit_files(slow, {"b": b"b"}, parents=(Parent(PREVIOUS, gone),), ref="tags/y")
        assert not troubles(repo)

    def test_a_parent_that_is_collected_before_the_root_is_not_named(
        self, repo: Repo, slow: Repo
    ) -> None:
        gone = commit_files(repo, {"a": b"a"}, ref="tags/x")

        def forget() -> None:
            set_ref(repo, "tags/x", None)
            collect(repo)

        overtake(slow, forget)
        with pytest.raises(NotFoundError):
            commit_files(slow, {"b": b"b"}, parents=(Parent(PREVIOUS, gone),), ref="tags/y")
        assert "tags/y" not in repo.refresh().refs
        assert not troubles(repo)

    def test_a_tree_that_was_never_written_is_not_named(self, repo: Repo) -> None:
        def make(transaction: Transaction) -> None:
            with pytest.raises(NotFoundError):
                transaction.record(Commit(kind=COMMIT, tree=TreeId(blob_id(b"never written"))))

        transact(repo, "broken", make)

    def test_a_name_that_comes_while_prune_decides_spares_what_it_names(
        self, repo: Repo, slow: Repo
    ) -> None:
        run = RunBuilder(repo, "exp/one")
        for step in range(3):
            run.checkpoint(step, {"w": noise(step, 2000)})
        run.finish()
        planned = prune.plan(slow, Keep(last=1))
        assert planned.dropped == tuple(run.ids[:2])
        overtake(slow, lambda: set_ref(repo, "tags/best", run.ids[0]))
        assert prune.execute(slow, planned) == (run.ids[1],)
        collect(repo)
        payload = repo.commit(run.ids[0]).payload
        assert payload
        assert read_tree(slow, payload) == {"state": {"w": noise(0, 2000)}}

    def test_a_reader_goes_on_while_others_move_what_it_reads(self, repo: Repo, slow: Repo) -> None:
        big = noise(1, 3_000_000)
        commit_files(repo, {"big": big}, ref="tags/keep")
        assert slow.refresh().seq == repo.root.seq
        parts = slow.store.pieces(blob_id(big))
        read = [bytes(next(parts))]
        for number in range(3):
            commit_files(repo, {"x": noise(number + 2, 400_000)}, ref="tags/x")
            set_ref(repo, "tags/x", None)
            collect(repo)
            read.append(bytes(next(parts)))
        assert b"".join([*read, *map(bytes, parts)]) == big

    def test_an_old_plan_takes_nothing_that_came_alive(self, repo: Repo, slow: Repo) -> None:
        files = {"a": noise(1, 300_000)}
        commit_files(repo, files, ref="tags/x")
        set_ref(repo, "tags/x", None)
        planned = gc.plan(slow)
        id = commit_files(repo, files, ref="tags/y")
        gc.execute(slow, planned)
        assert read_tree(repo, repo.commit(id).tree) == files
        assert not troubles(repo)


def assert_frees(repo: Repo) -> None:
    assert collect(repo).freed_bytes > 300_000
