"""How a run ends, whatever ends it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import InvalidInputError, TrackingError
from cas.repo.transaction import Transaction, transact
from cas.tracking import live
from cas.tracking.ends import ending
from tests.support.runs import (
    environment,
    names,
    only_run,
    opened,
    points,
    python,
    script,
    text,
)

Capture = pytest.CaptureFixture[str]


def test_a_failure_does_not_hide_the_exception_of_the_script(here: Path) -> None:
    def train() -> float:
        with cas.track("a") as run:
            run.log_metrics({"loss": "?"})
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        train()
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.status == "failed"
    assert "ZeroDivisionError: division by zero" in text(repo, commit, "traceback.txt")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(3), "failed"),
        (SystemExit("sorry"), "failed"),
        (SystemExit(0), "finished"),
        (SystemExit(None), "finished"),
    ],
    ids=repr,
)
def test_how_a_block_ends_is_how_the_run_ends(
    here: Path, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)), cas.track("a"):
        raise error
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.status == status
    assert ("traceback.txt" in names(repo, commit.tree)) == (status != "finished")


def test_finish_ends_a_run_once(here: Path) -> None:
    run = cas.track("a", name="x")
    first = run.finish("failed", message="it did not learn")
    assert run.finish() == first
    repo = opened(here)
    _, commit = only_run(repo)
    assert (commit.status, commit.message) == ("failed", "it did not learn")
    with pytest.raises(InvalidInputError, match="run a/x has ended: log comes too late"):
        run.log({"x": 1})
    with cas.track("b") as again:
        again.finish()
    with pytest.raises(InvalidInputError, match="a run ends as finished, failed, interrupted"):
        cas.track("c").finish("great")


def test_a_forked_child_leaves_the_run_alone(here: Path) -> None:
    run = cas.track("a")
    run.log({"x": 1})
    child = os.fork()
    if not child:
        try:
            run.log({"x": 2})
            run.log_params({"from": "child"})
            run.save_checkpoint(model={"w": 1})
            assert run.finish() is None
            assert ending._hooks.open == []
            with run:
                pass
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    run.log({"x": 3})
    run.finish()
    repo = opened(here)
    _, commit = only_run(repo)
    assert points(repo, commit) == {"x": [(0, 1.0), (1, 3.0)]}
    assert commit.seq == 1


def test_two_runs_at_once_are_two_runs(here: Path) -> None:
    hook, leave = sys.excepthook, sys.exit
    first, second = cas.track("a", name="x"), cas.track("a", name="y")
    assert sys.excepthook is not hook
    first.log({"m": 1})
    second.log({"m": 2})
    first.finish()
    assert sys.excepthook is not hook
    second.log({"m": 3})
    second.finish()
    assert (sys.excepthook, sys.exit) == (hook, leave)
    repo = opened(here)
    refs = repo.root.refs
    assert points(repo, repo.commit(refs["runs/a/x"])) == {"m": [(0, 1.0)]}
    assert points(repo, repo.commit(refs["runs/a/y"])) == {"m": [(0, 2.0), (1, 3.0)]}


def test_standard_error_may_be_gone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    run = cas.track("a")
    run.log_metrics({"x": "?"})
    with pytest.raises(TrackingError):
        run.finish()


def test_an_interrupted_finish_can_be_done_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = transact
    for after in (False, True):
        run = cas.track("a", name=f"after-{after}")
        run.log({"x": 1})

        def interrupted(*args: object, after: bool = after, **more: object) -> object:
            monkeypatch.setattr(live, "transact", real)
            if after:
                real(*args, **more)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        monkeypatch.setattr(live, "transact", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.finish()
        id = run.finish()
        repo = opened(here)
        assert repo.root.refs[f"runs/a/after-{after}"] == id
        assert id is not None
        assert points(repo, repo.commit(id)) == {"x": [(0, 1.0)]}
        assert repo.commit(id).seq == 1


def test_a_run_that_was_taken_for_dead_goes_on_under_a_new_ref(here: Path, capsys: Capture) -> None:
    run = cas.track("a", name="x")
    run.log({"m": 1})
    first = run.save_checkpoint(model={"w": 1}, step=1).commit
    other = opened(here)

    def recover(tx: Transaction) -> None:
        draft = tx.ref("open/a/x")
        tx.set_ref("open/a/x", None)
        tx.set_ref("runs/a/x", draft)

    transact(other, "recover", recover)
    capsys.readouterr()
    run.log({"m": 2})
    second = run.save_checkpoint(model={"w": 2}, step=2).commit
    run.save_checkpoint(model={"w": 3}, step=3)
    assert run.name == "a/x-2"
    run.finish()
    said = capsys.readouterr().err
    assert said.count("run a/x was taken for dead and committed; it goes on as a/x-2") == 1
    refs = other.refresh().refs
    assert sorted(ref for ref in refs if not ref.startswith("holds/")) == ["runs/a/x", "runs/a/x-2"]
    assert points(other, other.commit(refs["runs/a/x-2"])) == {"m": [(0, 1.0), (1, 2.0)]}
    assert second is not None
    assert [parent.commit for parent in other.commit(second).parents] == [first]


ENDS = {
    "the end of the script": ("pass", 0, "finished", None),
    "an exception": ("raise ValueError('no luck')", 1, "failed", "ValueError: no luck"),
    "sys.exit with a code": ("sys.exit(3)", 3, "failed", "SystemExit: 3"),
    "sys.exit without one": ("sys.exit()", 0, "finished", None),
    "Ctrl-C": ("os.kill(os.getpid(), 2)", -2, "interrupted", "KeyboardInterrupt"),
    "a sys.exit that was caught": (
        "\ntry:\n    sys.exit(3)\nexcept SystemExit:\n    run.log({'x': 2})",
        0,
        "finished",
        None,
    ),
    "sys.exit in a thread": (
        "import threading; t = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()",
        0,
        "finished",
        None,
    ),
    "an exception while a thread still logs": (
        "import threading; e = threading.Event()\n"
        "def work():\n    e.wait()\n    run.log({'x': 9})\n"
        "threading.Thread(target=work).start()\n"
        "hook = sys.excepthook\n"
        "def late(*a):\n    hook(*a)\n    e.set()\n"
        "sys.excepthook = late\n"
        "raise ValueError('no luck')",
        1,
        "failed",
        "ValueError: no luck",
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_run_without_a_block_ends_with_the_script(here: Path, how: str) -> None:
    last, code, status, told = ENDS[how]
    path = script(here, f"run = cas.track('a')\nrun.log({{'x': 1}})\n{last}\n")
    done = python(here, path, code=code)
    assert f"cas: {status} a/" in done.stderr
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.status == status
    assert points(repo, commit)["x"][0] == (0, 1.0)
    assert ("traceback.txt" in names(repo, commit.tree)) == (told is not None)
    if told is not None:
        assert told in text(repo, commit, "traceback.txt")


def test_a_failure_of_tracking_is_told_at_the_end_of_the_interpreter(here: Path) -> None:
    done = python(here, script(here, "run = cas.track('a')\nrun.log_metrics({'x': '?'})\n"))
    assert "cas: error: 1 call of run a/" in done.stderr
    assert "Traceback" not in done.stderr


def test_hooks_that_others_set_meanwhile_stay(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda *_: seen.append("own"))
    run = cas.track("a")
    ours = sys.excepthook

    def theirs(*args: Any) -> None:
        seen.append("theirs")
        ours(*args)

    sys.excepthook = theirs
    run.finish()
    assert sys.excepthook is theirs
    cas.track("b").finish()
    sys.excepthook(ValueError, ValueError(), None)
    assert seen == ["theirs", "own"]
    sys.excepthook = ours
    cas.track("c").finish()


def test_a_child_that_ends_normally_does_not_end_the_run_of_its_parent(here: Path) -> None:
    path = script(
        here,
        "run = cas.track('a')\n"
        "if not os.fork():\n    own = cas.track('b')\n    own.log({'y': 1})\n    sys.exit(3)\n"
        "os.wait()\nrun.log({'x': 1})\n",
    )
    python(here, path)
    repo = opened(here)
    ends = {ref.split("/")[1]: repo.commit(id) for ref, id in repo.root.refs.items()}
    assert {name: commit.status for name, commit in ends.items()} == {
        "a": "finished", "b": "failed"
    }  # fmt: skip


WAYS = {
    "from another folder": (["../train.py"], "other", "script", "train"),
    "as a module": (["-m", "pkg.fit"], ".", "module", "fit"),
    "inline": (["-c", "import cas; cas.track()"], ".", "inline", "interactive"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_start_python_makes_a_run(here: Path, way: str) -> None:
    args, folder, kind, experiment = WAYS[way]
    script(here, "cas.track(repo='/'.join([os.path.dirname(__file__), 'r']))\n")
    script(here, "cas.track(repo='r')\n", "pkg/fit.py")
    (here / "other").mkdir()
    python(here / folder, *args, env={"CAS_DIR": str(here / "told")} if kind == "inline" else {})
    repo = opened(here / ("told" if kind == "inline" else "r"))
    _, commit = only_run(repo)
    started = json.loads(text(repo, commit, "command.json"))
    assert (started["kind"], commit.experiment) == (kind, experiment)
    assert started["cwd"] == folder or kind == "module"


def test_a_script_from_standard_input_makes_a_run(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-"],
        input="import cas\nwith cas.track() as run:\n    run.log({'x': 1})\n",
        cwd=here,
        text=True,
        capture_output=True,
        check=True,
        env=environment(),
    )
    assert "cas: finished interactive/" in done.stderr
    assert "problems" in text(opened(here), only_run(opened(here))[1], "host.json")


def test_neither_a_home_nor_git_is_needed(here: Path) -> None:
    path = script(here, "with cas.track('a') as run:\n    run.log({'x': 1})\n")
    (here / ".git").mkdir()
    (here / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    env = {"HOME": "/proc/nowhere", "PATH": str(here / "nothing"), "XDG_CACHE_HOME": "/proc/x"}
    python(here, path, env=env)
    repo = opened(here)
    assert repo.path == here / ".git" / "cas"
    _, commit = only_run(repo)
    assert "git cannot be started" in text(repo, commit, "host.json")
    assert text(repo, commit, "code/train.py").startswith("import os")


def test_a_run_ends_well_where_no_thread_can_be_started_any_more(here: Path) -> None:
    # As in Python 3.12 and later, once the interpreter has begun to end.
    path = script(
        here,
        "import atexit, threading\nrun = cas.track('a')\nrun.log({'x': 1})\n"
        "def boom(self):\n    raise RuntimeError('no new thread at interpreter shutdown')\n"
        "atexit.register(setattr, threading.Thread, 'start', boom)\n",
    )
    assert "cas: finished a/" in python(here, path).stderr
    assert points(opened(here), only_run(opened(here))[1]) == {"x": [(0, 1.0)]}
