"""Checkpoints that are stored behind the loop: what they hold, and what becomes of failures."""

import contextlib
import errno
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cas
from cas.errors import NotFoundError, StorageFullError, TrackingError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT
from cas.tracking.checkpoints import room, storing
from cas.tracking.checkpoints.room import Disk, Sizes
from cas.tracking.live import Live
from cas.tracking.run import Run
from tests.support.runs import (
    checkpoints,
    eventually,
    only_run,
    opened,
    points,
    python,
    script,
    started,
)

Capture = pytest.CaptureFixture[str]


class Gate:
    """Holds up every commit of a checkpoint until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.error: Exception | None = None
        real = Live.checkpoint

        def checkpoint(live: Live, *given: Any) -> CommitId:
            self.reached.set()
            assert self.open.wait(60)
            if self.error is not None:
                raise self.error
            return real(live, *given)

        monkeypatch.setattr(Live, "checkpoint", checkpoint)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    found = Gate(monkeypatch)
    yield found
    found.open.set()


def weights(run: Run, rev: str = "latest") -> Any:
    return run.load_checkpoint(rev).state["model"]["w"]


def test_the_loop_goes_on_while_a_checkpoint_is_stored(here: Path, gate: Gate) -> None:
    run = cas.track("a")
    saving = run.save_checkpoint(model={"w": 1}, step=1)
    assert gate.reached.wait(10)
    assert not saving.wait(0.01)
    assert "under way" in repr(saving)
    run.log_metrics({"loss": 1.0})
    gate.open.set()
    assert saving.commit is not None
    assert saving.done
    assert opened(here).commit(saving.commit).kind == CHECKPOINT
    assert str(saving.commit) in repr(saving)
    run.finish()


def test_a_checkpoint_says_what_was_known_when_it_was_asked_for(here: Path, gate: Gate) -> None:
    run = cas.track("a", params={"lr": 1})
    run.log_metrics({"loss": 2.0}, step=0, epoch=0)
    first = run.save_checkpoint(model={"w": 1}, step=0)
    run.log_metrics({"loss": 1.0}, step=1, epoch=0)
    run.log_params({"lr": 2})
    second = run.save_checkpoint(model={"w": 2}, step=1)
    run.log_metrics({"loss": 0.5}, step=2, epoch=1)
    gate.open.set()
    assert first.commit is not None
    assert second.commit is not None
    run.finish()
    repo = opened(here)
    one, two = repo.commit(first.commit), repo.commit(second.commit)
    assert [one.monitor and one.monitor.value, two.monitor and two.monitor.value] == [2.0, 1.0]
    assert points(repo, one) == {"loss": [(0, 2.0)]}
    assert points(repo, two) == {"loss": [(1, 1.0)]}
    assert points(repo, one, "epochs")["loss/last"] == [(0, 2.0)]
    assert points(repo, two, "epochs")["loss/last"] == [(0, 1.0)]
    lasts = [repo.document(commit.tree, "summary.json") for commit in (one, two)]
    assert [last["loss"]["count"] for last in lasts if isinstance(last, dict)] == [1, 2]
    params = [repo.document(commit.tree, "params.json") for commit in (one, two)]
    assert params == [{"lr": 1}, {"lr": 2}]
    assert [one.seq, two.seq] == [1, 2]
    _, end = only_run(repo)
    assert points(repo, end) == {"loss": [(0, 2.0), (1, 1.0), (2, 0.5)]}


@pytest.mark.parametrize("seed", range(5))
def test_what_changes_right_after_a_save_never_reaches_it(here: Path, seed: int) -> None:
    rng = random.Random(seed)
    size = rng.choice([100, 10_000, 1_000_000])
    w, order = np.zeros(size), [0]
    with cas.track("a", name="x", system_metrics=False) as run:
        savings = []
        for step in range(12):
            w += 1
            order[0] = step
            savings.append(run.save_checkpoint(model={"w": w, "order": order}, step=step))
            w *= -1
            order[0] = -5
            w *= -1
        for step, saving in enumerate(savings):
            loaded = run.load_checkpoint(str(saving.commit)).state["model"]
            assert loaded["order"] == [step]
            assert set(np.unique(loaded["w"])) == {step + 1.0}


def test_what_changes_in_tensors_of_torch_never_does_either(here: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    model = torch.nn.Linear(500, 500)
    optimizer = torch.optim.Adam(model.parameters())
    with cas.track("a", system_metrics=False) as run:
        savings, expected = [], []
        for step in range(5):
            model(torch.ones(2, 500)).sum().backward()
            optimizer.step()
            expected.append({name: value.clone() for name, value in model.state_dict().items()})
            savings.append(run.save_checkpoint(model=model, optimizer=optimizer, step=step))
            with torch.no_grad():
                model.weight.fill_(7)
                model.weight.copy_(expected[-1]["weight"])
                model.bias.zero_()
        for saving, state in zip(savings, expected, strict=True):
            loaded = run.load_checkpoint(str(saving.commit)).state["model"]
            assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_failure_behind_the_loop_is_told_at_the_next_call_and_at_the_end(
    here: Path, gate: Gate, capsys: Capture
) -> None:
    run = cas.track("a")
    gate.error = OSError(errno.EIO, "the disk is gone")
    saving = run.save_checkpoint(model={"w": 1}, step=7)
    gate.open.set()
    assert saving.commit is None
    assert isinstance(saving.error, OSError)
    capsys.readouterr()
    run.log_metrics({"loss": 1.0})
    said = capsys.readouterr().err
    assert "warning: save_checkpoint: OSError: [Errno 5] the disk is gone" in said
    with pytest.raises(TrackingError, match=r"1 call of run .* failed; first: save_checkpoint"):
        run.finish()


def test_a_failure_that_nobody_asked_for_is_printed_at_exit(here: Path) -> None:
    path = script(
        here,
        "from cas.tracking.live import Live\n"
        "def broken(*_): raise OSError(5, 'the disk is gone')\n"
        "Live.checkpoint = broken\n"
        "run = cas.track('a', name='x')\nrun.save_checkpoint(model={'w': 1}, step=1)\n",
    )
    done = python(here, path)
    assert "1 call of run a/x failed; first: save_checkpoint: OSError" in done.stderr
    assert only_run(opened(here))[1].status == "finished"


def test_what_is_under_way_when_the_script_ends_is_stored(here: Path) -> None:
    path = script(
        here,
        "import numpy as np\nrun = cas.track('a', name='x')\n"
        "for n in range(3): run.save_checkpoint(model={'w': np.full(300_000, n)}, step=n)\n",
    )
    python(here, path)
    repo = opened(here)
    assert [c.step for _, c in checkpoints(repo, only_run(repo)[0])] == [0, 1, 2]


def test_the_end_of_a_run_waits_for_its_checkpoints(here: Path, gate: Gate) -> None:
    run = cas.track("a")
    savings = [run.save_checkpoint(model={"w": n}, step=n) for n in range(2)]
    threading.Timer(0.05, gate.open.set).start()
    run.finish()
    assert all(saving.done for saving in savings)
    assert len(checkpoints(opened(here), only_run(opened(here))[0])) == 2


def test_a_third_save_waits_for_memory(here: Path, gate: Gate) -> None:
    run = cas.track("a")
    for step in range(2):
        run.save_checkpoint(model={"w": np.arange(100)}, step=step)
    threading.Timer(0.1, gate.open.set).start()
    began = time.monotonic()
    run.save_checkpoint(model={"w": np.arange(100)}, step=2)
    assert time.monotonic() - began >= 0.05
    run.finish()
    assert len(checkpoints(opened(here), only_run(opened(here))[0])) == 3


def test_or_is_left_out_where_the_user_says_so(here: Path, gate: Gate, capsys: Capture) -> None:
    run = cas.track("a", strategy={"busy": "skip"})
    savings = [run.save_checkpoint(model={"w": np.arange(100)}, step=n) for n in range(4)]
    assert [saving.done for saving in savings] == [False, False, True, True]
    assert savings[3].commit is None
    assert "checkpoint at step 3 left out: two are still being stored" in capsys.readouterr().err
    gate.open.set()
    run.finish()
    repo = opened(here)
    assert [c.step for _, c in checkpoints(repo, only_run(repo)[0])] == [0, 1]


def test_with_wait_it_is_durable_when_the_call_returns(here: Path) -> None:
    run = cas.track("a", strategy={"wait": True})
    assert run.save_checkpoint(model={"w": 1}, step=1).done
    assert run.save_checkpoint(model={"w": 1}, step=2, wait=True).done
    run.finish()


def test_a_state_that_does_not_fit_is_stored_from_where_it_is(here: Path, capsys: Capture) -> None:
    run = cas.track("a", strategy=cas.Strategy(staging=1000))
    savings = [run.save_checkpoint(model={"w": np.full(10_000, n)}, step=n) for n in range(2)]
    assert all(saving.done for saving in savings)
    assert weights(run)[5] == 1
    run.finish()
    said = capsys.readouterr().err
    assert said.count("does not fit into the memory for copies") == 1


def test_so_is_one_for_which_there_is_no_memory(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def none(_: int) -> Any:
        raise MemoryError

    monkeypatch.setattr("cas.tracking.captured.frameworks.staging", none)
    with cas.track("a") as run:
        assert run.save_checkpoint(model={"w": np.arange(100)}, step=1).done
        assert weights(run)[5] == 5
    assert "does not fit into the memory for copies" in capsys.readouterr().err


def test_what_cannot_be_stored_is_told_at_once(here: Path, capsys: Capture) -> None:
    run = cas.track("a")
    saving = run.save_checkpoint(model={"fn": print})
    assert saving.done
    assert saving.commit is None
    assert "save_checkpoint: cannot store model.fn" in capsys.readouterr().err
    with pytest.raises(TrackingError):
        run.finish()


def test_parts_that_are_registered_need_not_be_named_again(here: Path) -> None:
    with cas.track("a") as run:
        run.register(model={"w": 1}, data={"at": 5})
        run.save_checkpoint(step=1, optimizer={"lr": 1})
        loaded = run.load_checkpoint()
        assert loaded.state["model"] == {"w": 1}
        assert loaded.state["data"] == {"at": 5}
        assert loaded.lacks == ()
        run.save_checkpoint(step=2, model={"w": 2})
        state = run.load_checkpoint().state
        assert state["model"] == {"w": 2}
        assert state["data"] == {"at": 5}
        assert "optimizer" not in state  # what is given to one checkpoint is that one's


def test_what_a_checkpoint_lacks_is_in_it(here: Path) -> None:
    with cas.track("a") as run:
        run.save_checkpoint(model={"w": 1})
        assert run.load_checkpoint().lacks == ("optimizer", "data", "step")
        run.save_checkpoint(model={"w": 1}, scaler={"scale": 2.0}, epoch=1)
        loaded = run.load_checkpoint()
        assert loaded.lacks == ("optimizer", "data")
        assert loaded.state["scaler"] == {"scale": 2.0}


def test_the_best_is_what_the_monitor_says_or_somebody_said(here: Path) -> None:
    with cas.track("a", strategy={"monitor": "score"}) as run:
        assert run.latest() is None
        assert run.best() is None
        ids = [
            run.save_checkpoint(model={"w": n}, step=n, metrics={"score": s, "loss": n}).commit
            for n, s in enumerate([1.0, 3.0, 2.0])
        ]
        assert run.latest() == ids[2]
        assert run.best() == ids[1]
        said = run.save_checkpoint(model={"w": 5}, step=5, metrics={"score": 0.0}, best=True)
        run.save_checkpoint(model={"w": 6}, step=6, metrics={"score": 9.0})
        assert run.best() == said.commit
        assert weights(run, "best") == 5


def test_what_was_said_to_be_the_best_is_kept(here: Path) -> None:
    with cas.track("a", retention=cas.Keep(last=1)) as run:
        said = run.save_checkpoint(model={"w": 1}, step=1, best=True).commit
        for step in range(2, 6):
            run.save_checkpoint(model={"w": step}, step=step)
        newest = run.latest()
        assert weights(run, str(said)) == 1
    held = {id for ref, id in opened(here).refresh().refs.items() if ref.startswith("holds/")}
    assert held == {said, newest}


def test_a_total_limit_keeps_the_last_and_the_best(here: Path) -> None:
    losses = [3.0, 1.0, 2.0, 2.5, 2.2]
    with cas.track("a", strategy={"save_total_limit": 2}) as run:
        ids = [
            run.save_checkpoint(model={"w": n}, step=n, metrics={"loss": loss}).commit
            for n, loss in enumerate(losses)
        ]
    held = {id for ref, id in opened(here).refresh().refs.items() if ref.startswith("holds/")}
    assert held == {ids[1], ids[3], ids[4]}


def test_a_strategy_says_when(here: Path) -> None:
    with cas.track("a", strategy={"save_steps": 10}) as run:
        for step in range(1, 36):
            if run.should_save(step):
                run.save_checkpoint(model={"w": step}, step=step)
    repo = opened(here)
    assert [c.step for _, c in checkpoints(repo, only_run(repo)[0])] == [10, 20, 30]


@pytest.mark.parametrize("said", [True, False])
def test_an_exception_is_saved_before_it_ends_the_run(here: Path, said: bool) -> None:
    strategy = cas.Strategy(on_exception=said)
    with contextlib.suppress(ZeroDivisionError), cas.track("a", strategy=strategy) as run:
        run.register(model={"w": 1})
        run.log_metrics({"loss": 1.0}, step=41)
        raise ZeroDivisionError
    repo = opened(here)
    tip, commit = only_run(repo)
    assert commit.status == "failed"
    assert [c.step for _, c in checkpoints(repo, tip)] == ([41] if said else [])


def test_a_forked_child_saves_nothing_and_waits_for_nothing(here: Path, gate: Gate) -> None:
    run = cas.track("a")
    first = run.save_checkpoint(model={"w": 1}, step=1)
    child = os.fork()
    if not child:
        ok = run.save_checkpoint(model={"w": 2}, step=2).commit is None
        ok = ok and not run.should_save(3) and first.commit is None and run.latest() is None
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    gate.open.set()
    run.finish()
    assert len(checkpoints(opened(here), only_run(opened(here))[0])) == 1


def test_ctrl_c_during_the_copy_leaves_the_memory_usable(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    run = cas.track("a")
    with monkeypatch.context() as patched:
        patched.setattr(storing, "stage", stopped)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                run.save_checkpoint(model={"w": np.arange(10)}, step=1)
    assert run.save_checkpoint(model={"w": np.arange(10)}, step=2).commit is not None
    run.finish()


def full(monkeypatch: pytest.MonkeyPatch, free: list[int]) -> None:
    """A disk with so much free space at each look; the last look counts for all that follow."""

    def of(_: Path) -> Disk:
        return Disk(10**12, free.pop(0) if len(free) > 1 else free[0])

    monkeypatch.setattr(room.Disk, "of", staticmethod(of))


def test_below_what_must_stay_free_nothing_is_saved(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with cas.track("a", name="x") as run:
        run.save_checkpoint(model={"w": 1}, step=1, wait=True)
        with monkeypatch.context() as patched:
            full(patched, [10**6])
            assert run.save_checkpoint(model={"w": 2}, step=2).commit is None
            assert run.save_checkpoint(model={"w": 3}, step=3).commit is None
        assert run.save_checkpoint(model={"w": 4}, step=4).commit is not None
        run._live.flush()
    said = capsys.readouterr().err
    assert said.count("checkpoint left out") == 1
    repo = opened(here)
    tip, commit = only_run(repo)
    assert [c.step for _, c in checkpoints(repo, tip)] == [1, 4]
    events = repo.document(commit.tree, "events.json")
    assert isinstance(events, list)
    assert [event["title"] for event in events] == ["checkpoint left out"]


def test_what_the_policy_lets_go_of_goes_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cas.track("a", retention=cas.Keep(last=1))
    run.save_checkpoint(model={"w": 1}, step=1, wait=True)
    made: list[str] = []
    assert run._storing.retention is not None
    monkeypatch.setattr(run._storing.retention, "make_room", lambda *_: made.append("room"))
    full(monkeypatch, [10**6, 10**11])
    assert run.save_checkpoint(model={"w": 2}, step=2).commit is not None
    assert made == ["room"]
    run.finish()


def test_a_disk_that_is_full_is_collected_and_tried_once_more(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = Live.checkpoint, [1]

    def checkpoint(live: Live, *given: Any) -> CommitId:
        if failures:
            failures.pop()
            raise StorageFullError("no space left")
        return real(live, *given)

    monkeypatch.setattr(Live, "checkpoint", checkpoint)
    with cas.track("a") as run:
        assert run.save_checkpoint(model={"w": 1}, step=1).commit is not None
        failures += [1, 1]
        assert run.save_checkpoint(model={"w": 2}, step=2).commit is None
        with pytest.raises(TrackingError, match="no space left"):
            run.finish()


def test_space_that_is_really_given_back(here: Path) -> None:
    with cas.track("a", retention=cas.Keep(last=1)) as run:
        assert run._storing.retention is not None
        for step in range(3):
            data = np.random.default_rng(step).bytes(200_000)
            run.save_checkpoint(model={"w": np.frombuffer(data, np.uint8)}, step=step, wait=True)
        before = packed(run)
        run._storing._make_room()
        assert packed(run) <= before
        assert packed(run) < 350_000


def packed(run: Run) -> int:
    return sum(path.stat().st_size for path in (run.repo.path / "packs").rglob("*.*"))


def sized(*stored: int, apart: float = 1.0) -> Sizes:
    """What is known after checkpoints of 1 GB for which so much was stored."""
    sizes = Sizes()
    for number, size in enumerate(stored):
        sizes.add(10**9, size, 1000 + number * apart)
    return sizes


def test_where_the_use_of_the_disk_is_heading() -> None:
    disk = Disk(10**12, 50 * 10**9)
    assert sized(8 * 10**8).outlook(disk, None) is None
    said = sized(8 * 10**8, 10**9).outlook(disk, None)
    assert said is not None
    assert "a checkpoint takes 1.0 GB: the disk is full after 50 more;" in said
    assert "retention=cas.Keep(last=3, best=1)" in said
    slow = sized(8 * 10**8, 10**9, apart=720).outlook(disk, None)
    assert slow is not None
    assert "full after 50 more, in about 10 h;" in slow
    assert sized(10**9, 10**9).outlook(Disk(10**15, 10**14), None) is None
    assert sized(10**9, 10**9, 10**8).outlook(disk, None) is None


@pytest.mark.parametrize(
    ("keep", "is_news"),
    [
        (cas.Keep(last=2), False),
        (cas.Keep(last=2, best=1, min={"loss": 3}), False),
        (cas.Keep(last=60), True),  # more than the disk holds
        (cas.Keep(last=2, every=1000), True),  # ever more of them stay
        (cas.Keep(within="7d"), True),
        (cas.Keep(every=1000, budget="10GB"), False),
    ],
)
def test_a_policy_that_holds_them_is_no_news(keep: cas.Keep, is_news: bool) -> None:
    said = sized(10**9, 10**9).outlook(Disk(10**12, 50 * 10**9), keep)
    assert (said is not None) == is_news


def test_the_next_one_may_take_as_much_as_any_of_the_last() -> None:
    assert Sizes().expected(2 * 10**9) == 2 * 10**9
    assert sized(10**9, 0, 10**6).expected(2 * 10**9) == 2 * 10**9
    assert sized(*[10**9] + [10**8] * 8).expected(2 * 10**9) == 2 * 10**8


def test_what_must_stay_free_goes_by_the_disk() -> None:
    assert Disk(10**9, 10**7 + 5).has_room(5, None)
    assert not Disk(10**9, 10**7 + 5).has_room(6, None)
    assert Disk(10**14, 1024**3).has_room(0, None)
    assert not Disk(10**14, 1024**3).has_room(1, None)
    assert Disk(10**14, 10).has_room(3, 7)
    assert not Disk(10**14, 10).has_room(4, 7)


SIGNALLED = """
import signal, numpy as np
BEFORE
run = cas.track('a', name='x', strategy={'on_signal': True})
w = np.zeros(1000)
print('ready', flush=True)
for step in range(10**9):
    w += 1
    time.sleep(0.002)
    run.log_metrics({'w': w[0]}, step=step)
    if run.should_save(step):
        run.save_checkpoint(model={'w': w}, step=step)
    if STOPPED:
        break
"""


def signalled(here: Path, number: int, before: str = "", stopped: str = "False") -> Any:
    text = SIGNALLED.replace("BEFORE", before).replace("STOPPED", stopped)
    child = started(here, sys.executable, script(here, text))
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(number)
    return child


def test_sigterm_saves_and_ends_as_it_would_have(here: Path) -> None:
    child = signalled(here, signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGTERM
    assert "SIGTERM: a checkpoint is saved after this step" in said
    repo = opened(here)
    tip, commit = only_run(repo)
    assert (commit.status, commit.message) == ("interrupted", "ended by SIGTERM")
    ((id, saved),) = checkpoints(repo, tip)
    assert saved.step is not None
    assert np.all(cas.load(str(id), repo=here)["model"]["w"] == saved.step + 1)


def test_a_handler_that_was_there_is_called(here: Path) -> None:
    before = "told = []\nsignal.signal(signal.SIGTERM, lambda *_: told.append(1))"
    child = signalled(here, signal.SIGTERM, before, "told")
    child.communicate(timeout=60)
    assert child.returncode == 0
    repo = opened(here)
    tip, commit = only_run(repo)
    assert commit.status == "finished"
    assert len(checkpoints(repo, tip)) == 1


def test_sigusr1_saves_and_goes_on(here: Path) -> None:
    child = signalled(here, signal.SIGUSR1)
    repo = eventually(lambda: opened(here) if (here / ".cas").exists() else None)
    eventually(lambda: "runs/a/x" in repo.refresh().refs, "a checkpoint")
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGTERM
    assert len(checkpoints(repo, only_run(repo)[0])) == 2


def test_a_second_signal_waits_for_nothing(here: Path) -> None:
    path = script(
        here,
        "run = cas.track('a', name='x', strategy={'on_signal': True})\n"
        "print('ready', flush=True)\ntime.sleep(100)\n",
    )
    child = started(here, sys.executable, path)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    assert child.stderr is not None
    assert any("a checkpoint is saved after this step" in line for line in child.stderr)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGTERM
    assert "no checkpoint is saved" in said
    assert only_run(opened(here))[1].status == "interrupted"


def test_a_child_of_a_run_dies_of_a_signal_as_any(here: Path) -> None:
    path = script(
        here,
        "import signal\nrun = cas.track('a', name='x', strategy={'on_signal': True})\n"
        "ready, told = os.pipe()\nchild = os.fork()\n"
        "if not child:\n    os.write(told, b'x')\n    time.sleep(50)\n    os._exit(1)\n"
        "os.read(ready, 1)\nos.kill(child, signal.SIGTERM)\n"
        "print(os.waitpid(child, 0)[1])\nrun.finish()\n"
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n",
    )
    assert python(here, path).stdout.split() == [str(int(signal.SIGTERM)), "True"]
    assert only_run(opened(here))[1].status == "finished"


def test_there_is_none_to_load_before_the_first(here: Path) -> None:
    with cas.track("a") as run, pytest.raises(NotFoundError, match="none has been saved"):
        run.load_checkpoint()


class Panic(BaseException):
    """As libraries of Rust raise it: no Exception."""


def test_a_panic_behind_the_loop_is_told_and_hangs_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> CommitId:
        raise Panic("index out of bounds")

    run = cas.track("a")
    with monkeypatch.context() as patched:
        patched.setattr(Live, "checkpoint", broken)
        saving = run.save_checkpoint(model={"w": 1}, step=1)
        assert saving.commit is None
        assert "Panic: index out of bounds" in str(saving.error)
    assert run.save_checkpoint(model={"w": 1}, step=2).commit is not None
    with pytest.raises(TrackingError, match="Panic: index out of bounds"):
        run.finish()


def test_a_schedule_that_was_forgotten_is_missed(here: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cas.track("a") as run:
        run.register(model=model, optimizer=optimizer, data={"at": 1})
        run.save_checkpoint(step=1)
        assert run.load_checkpoint().lacks == ()
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
        run.save_checkpoint(step=2)
        assert run.load_checkpoint().lacks == ("scheduler",)
        run.save_checkpoint(step=3, scheduler=scheduler)
        assert run.load_checkpoint().lacks == ()
