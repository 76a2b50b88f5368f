"""An undo or a removal that stops anywhere, or races with others, is done or is not."""

import errno
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from cas.errors import NotFoundError, RefusedError
from cas.ids import CommitId
from cas.repo import undo
from cas.repo.check import fsck
from cas.repo.reflog import Past, history
from cas.repo.repo import Repo
from cas.repo.retain import remove
from cas.repo.transaction import Transaction, transact
from tests.support.builders import Clock, RunBuilder, commit_files, noise, reopened, repository
from tests.support.crashing import Quick, changes, stops
from tests.support.faulty import Crash
from tests.support.torture import amount

ROOT = Path(__file__).resolve().parents[2]
ENDS = [(Crash, True), (errno.EIO, False), (Crash, False), (errno.ENOSPC, False)]
every_end = pytest.mark.parametrize(("raises", "after"), ENDS[: amount(2, 4)])


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a run, one that was removed, and many refs."""
    repo = reopened(repository(tmp_path_factory.mktemp("origin")), Quick())
    id = commit_files(repo, {"a": b"1"}, payload={"w": noise(1, 3000)})

    def many(tx: Transaction) -> None:
        for number in range(100):
            tx.set_ref(f"tags/{number}", id)

    transact(repo, "many", many)
    for name in ("exp/stays", "exp/goes"):
        run = RunBuilder(repo, name)
        run.checkpoint(1, {"w": noise(len(name), 9000)})
        run.finish()
    remove.execute(repo, remove.plan(repo, ["exp/goes"]))
    return repo.path


def do_undo(repo: Repo) -> None:
    undo.execute(repo, undo.plan(repo))


def do_remove(repo: Repo) -> None:
    repo.who = "ada@host"
    remove.execute(repo, remove.plan(repo, ["exp/stays"]))


@pytest.mark.torture
@every_end
@pytest.mark.parametrize("act", [do_undo, do_remove])
def test_it_is_done_or_it_is_not(
    origin: Path,
    tmp_path: Path,
    act: Callable[[Repo], None],
    raises: int | type[Crash],
    after: bool,
) -> None:
    old = dict(opened(origin).root.refs)
    numbers = changes(origin, tmp_path / "trace", act)
    new = dict(opened(tmp_path / "trace").root.refs)
    assert old != new
    seen = set()
    for left, said in stops(origin, tmp_path / "copy", act, numbers, raises, after=after):
        repo = opened(left)
        refs = dict(repo.root.refs)
        assert refs in (old, new), said
        seen.add(refs == new)
        found = [item for item in fsck.check(repo, full=True) if item.severity != fsck.INFO]
        assert not found, said
        if refs == old:
            act(repo)
            assert dict(repo.refresh().refs) == new, said
        repo.backend.close()
    assert seen == {False, True}  # it stopped before and after the one moment that counts


def opened(path: Path) -> Repo:
    return reopened(Repo.open(path, who="ada@host", clock=Clock()), Quick())


WORKER = "from tests.fault.test_undo_faults import work; import sys; work(*sys.argv[1:])"
SHARED = [f"tags/{letter}" for letter in "abc"]


def work(folder: str, name: str, count: str) -> None:
    """Move refs, by hand and as a run, and take back; say the number of each undo."""
    repo = reopened(Repo.open(Path(folder), who=f"{name}@host", clock=Clock()), Quick())
    rng = random.Random(name)
    ids = sorted(set(repo.refresh().refs.values()))
    for number in range(int(count)):
        own = f"tags/{name}-{number}"
        try:
            match rng.randrange(4):
                case 0:
                    transact(repo, "run", partial(move, {own: ids[0]}), run="a/x")
                case 1:
                    undo.execute(repo, undo.plan(repo))
                case _:
                    names = [own, *rng.sample(SHARED, 2)]
                    moves = {ref: rng.choice([*ids, None]) for ref in names}
                    transact(repo, "move", partial(move, moves))
        except (RefusedError, NotFoundError):
            pass  # it has moved since, or there is nothing yet
    sys.stdout.write("done\n")


def move(moves: Mapping[str, CommitId | None], tx: Transaction) -> None:
    for ref, id in moves.items():
        tx.set_ref(ref, id)


@pytest.mark.torture
def test_many_that_move_refs_and_take_back(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    for number in range(3):
        commit_files(repo, {"a": b"%d" % number}, ref=f"models/{number}")
    count = amount(12, 1000)
    command = [sys.executable, "-c", WORKER, str(repo.path)]
    workers = [
        subprocess.Popen(
            [*command, f"user{n}", str(count)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    assert [worker.communicate()[0] for worker in workers] == ["done\n"] * 4
    check_history(reopened(repo))


def check_history(repo: Repo) -> None:
    """Insist that each operation began where the one before ended, and each undo is an inverse."""
    pasts = {past.number: past for past in history(repo)}
    assert list(pasts) == list(range(len(pasts), 0, -1))
    refs: dict[str, CommitId] = {}
    undone = 0
    for number in sorted(pasts):
        past = pasts[number]
        for change in past.changes:
            assert refs.pop(change.name, None) == change.old
            if change.new is not None:
                refs[change.name] = change.new
        if past.operation.what.startswith("undo"):
            undone += 1
            check_inverse(past, pasts[int(past.operation.what.split()[1].rstrip(":"))])
    assert refs == repo.root.refs
    assert undone


def check_inverse(past: Past, of: Past) -> None:
    assert of.number < past.number
    assert of.operation.who == past.operation.who
    assert not of.operation.run
    turned = {(change.name, change.new, change.old) for change in of.changes}
    assert {(change.name, change.old, change.new) for change in past.changes} <= turned


def test_a_lost_update_would_be_found(tmp_path: Path) -> None:
    from cas.repo import root as roots
    from cas.repo.root import Operation, RefChange

    repo = repository(tmp_path)
    one, two = (commit_files(repo, {"a": b"%d" % n}, ref="models/m") for n in range(2))
    undo.execute(repo, undo.plan(repo))
    check_history(reopened(repo))
    # As if somebody had published what was decided on an older root.
    stale = RefChange("models/m", two, None)
    operation = Operation(b"s" * 16, "ada@host", "stale", 1)
    roots.publish(repo.backend, repo.refresh().follow(operation, [stale]), b"w" * 16)
    assert one != two
    with pytest.raises(AssertionError):
        check_history(reopened(repo))
