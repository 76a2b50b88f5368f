"""Any program as a run: what goes through, what is kept, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cas.errors import InvalidInputError
from cas.objects.kind import Kind
from cas.repo.repo import Repo
from cas.tracking.ends.recovery import recover_lost
from cas.tracking.execute import Outcome, run_program
from cas.tracking.program import Program
from tests.support.builders import repository
from tests.support.runs import (
    CAS,
    checkpoints,
    eventually,
    everything,
    names,
    only_run,
    opened,
    points,
    script,
    text,
)

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"


@pytest.fixture
def repo(here: Path) -> Repo:
    return repository(here)


def shell(repo: Repo, here: Path, line: str, **more: object) -> Outcome:
    return run_program(repo, Program(("sh", "-c", line), **more), "sh", here)  # type: ignore[arg-type]


def test_output_goes_through_and_into_the_log(
    repo: Repo, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = shell(repo, here, "echo to out; printf '\\377'; echo to err >&2; exit 7")
    said = capfd.readouterr()
    assert outcome.exit_code == 7
    assert said.out.startswith("to out\n")
    assert "to err" in said.err.splitlines()
    id, commit = only_run(repo)
    assert id == outcome.commit
    assert (commit.status, commit.experiment) == ("failed", "sh")
    assert commit.payload is not None
    log = repo.lookup(commit.payload, b"log.txt")
    assert log is not None
    data = repo.store.read(Kind.BLOB, log.id)
    assert data.replace(b"to err\n", b"", 1) == b"to out\n\xff"
    assert list((repo.path / "journals").iterdir()) == []


def test_what_a_program_leaves_is_committed(repo: Repo, here: Path) -> None:
    (here / "in.csv").write_text("1\n")
    line = "mkdir out; echo a > out/a; echo 'step,loss\n5,0.5' > m.csv; echo b > b.txt"
    outcome = shell(
        repo, here, line, params={"lr": 0.1, "api_key": "s3cr3ts3cr3t"}, inputs=("in.csv",),
        outputs=("out/", "b.txt", "missing"), metrics="m.csv",
    )  # fmt: skip
    assert len(outcome.problems) == 1
    assert outcome.problems[0].startswith("output missing: cannot read")
    _, commit = only_run(repo)
    assert commit.status == "finished"
    assert text(repo, commit, "artifacts/out/a") == "a\n"
    assert text(repo, commit, "artifacts/b.txt") == "b\n"
    assert points(repo, commit) == {"loss": [(5, 0.5)]}
    assert repo.document(commit.tree, "params.json") == {"lr": 0.1, "api_key": "[secret removed]"}
    assert json.loads(text(repo, commit, "command.json")) == {
        "kind": "command",
        "argv": ["sh", "-c", line],
        "params": {"lr": 0.1, "api_key": "[secret removed]"},
        "inputs": ["in.csv"],
        "outputs": ["out/", "b.txt", "missing"],
        "metrics": "m.csv",
        "cwd": ".",
        "ordinal": 0,
    }
    (edge,) = commit.parents
    assert (edge.role, edge.attrs["at"]) == ("dataset", "in.csv")
    assert repo.root.refs["datasets/in.csv"] == edge.commit


def test_arguments_are_params_and_no_secret_is_kept(repo: Repo, here: Path) -> None:
    path = script(here, "print(os.environ['TOKEN'])\n", "show.py")
    argv = (
        sys.executable,
        str(path),
        "--lr",
        "0.1",
        "--token",
        TOKEN,
        f"--url=https://u:{TOKEN}@h",
    )
    env = {**os.environ, "TOKEN": TOKEN}
    outcome = run_program(repo, Program(argv, {"lr": 0.2}), None, here, variables=env)
    assert outcome.run.startswith("show/")
    _, commit = only_run(repo)
    params = repo.document(commit.tree, "params.json")
    assert isinstance(params, dict)
    assert (params["lr"], params["token"]) == (0.2, "[secret removed]")
    assert text(repo, commit, "log.txt") == "[secret removed]\n"
    assert TOKEN.encode() not in everything(repo)


def test_a_long_log_is_cleaned_piece_by_piece(
    repo: Repo, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cas.tracking.runfiles.PART", 1000)
    line = f"for i in $(seq 300); do echo 'line '$i' {TOKEN}'; done; printf end"
    run_program(repo, Program(("sh", "-c", line)), "sh", here, output=(os.open(os.devnull, 1), 2))
    log = text(repo, only_run(repo)[1], "log.txt").splitlines()
    assert log == [f"line {n} [secret removed]" for n in range(1, 301)] + ["end"]


@pytest.mark.parametrize("name", ["nowhere-to-be-found", "./nothing", "plain.txt", "./plain.txt"])
def test_a_program_that_is_not_there_leaves_no_run(repo: Repo, here: Path, name: str) -> None:
    (here / "plain.txt").write_text("no program")
    with pytest.raises(InvalidInputError, match=f"cannot run {name}"):
        run_program(repo, Program((name,)), None, here)
    assert list(repo.refresh().refs) == []


def test_a_run_that_cannot_begin_is_taken_back(repo: Repo, here: Path) -> None:
    (here / "broken").write_bytes(b"\x7fELF nonsense")
    (here / "broken").chmod(0o755)
    with pytest.raises(InvalidInputError, match=r"cannot run ./broken: Exec format error"):
        run_program(repo, Program(("./broken",)), None, here)
    with pytest.raises(InvalidInputError, match="no such data"):
        shell(repo, here, "true", inputs=("nowhere",))
    assert list(repo.refresh().refs) == []
    assert list((repo.path / "journals").iterdir()) == []


INNER = """
run = cas.track("inner", name="other", params={"inner": 1}, seed=3, labels=["l"])
run.log({"m": 1.0})
open("a.txt", "w").write("a" * 70_000)
run.log_artifact("a.txt")
run.track_dataset([1.0], name="d")
run.save_checkpoint(model={"w": 1}, step=1)
run.log({"m": 2.0})
"""


def test_a_run_inside_continues_the_run_around_it(repo: Repo, here: Path) -> None:
    path = script(here, INNER + "print(run.name)\n")
    argv = (sys.executable, str(path), "--lr", "0.1")
    outcome = run_program(repo, Program(argv, outputs=("a.txt",)), "outer", here)
    id, commit = only_run(repo)
    assert (outcome.commit, commit.full_name, commit.seq) == (id, outcome.run, 2)
    assert text(repo, commit, "log.txt") == f"{outcome.run}\n"
    assert repo.document(commit.tree, "params.json") == {"lr": 0.1, "inner": 1}
    assert repo.document(commit.tree, "seeds.json") == {"seed": 3}
    assert points(repo, commit) == {"m": [(0, 1.0), (1, 2.0)]}
    ((_, checkpoint),) = checkpoints(repo, id)
    assert checkpoint.full_name == outcome.run
    assert repo.document(checkpoint.tree, "params.json") == {"lr": 0.1, "inner": 1}
    assert {parent.role for parent in commit.parents} == {"previous", "dataset"}
    notes = repo.document(commit.tree, "notes.json")
    assert isinstance(notes, dict)
    assert notes["labels"] == ["l"]
    assert commit.payload is not None
    held = repo.lookup(commit.payload, b"artifacts")
    assert held is not None
    assert names(repo, held.id) == ["a.txt"]
    assert list((repo.path / "journals").iterdir()) == []
    assert len([ref for ref in repo.root.refs if ref.startswith("runs/")]) == 1


def test_two_programs_inside_do_not_lose_each_others_artifacts(repo: Repo, here: Path) -> None:
    for name in ("x", "y"):
        body = (
            f"run = cas.track()\nopen('{name}.bin', 'wb').write(b'{name}' * 70_000)\n"
            f"run.log_artifact('{name}.bin')\nrun.log({{'{name}': 1}})\n"
            f"run.log_params({{'{name}': 2}})\n"
        )
        script(here, body, f"{name}.py")
    line = f"{sys.executable} x.py & {sys.executable} y.py; wait; {CAS} gc"
    shell(repo, here, line)
    _, commit = only_run(repo)
    assert commit.payload is not None
    held = repo.lookup(commit.payload, b"artifacts")
    assert held is not None
    assert names(repo, held.id) == ["x.bin", "y.bin"]
    assert points(repo, commit) == {"x": [(0, 1.0)], "y": [(0, 1.0)]}
    assert repo.document(commit.tree, "params.json") == {"x": 2, "y": 2}


def test_a_run_inside_outlives_a_run_around_it_only_with_an_error(repo: Repo, here: Path) -> None:
    path = script(
        here,
        "run = cas.track()\nopen('ready', 'w').close()\n"
        "while not os.path.exists('go'): time.sleep(0.01)\nrun.save_checkpoint(model={})\n"
        "try:\n    run.finish()\nexcept cas.CasError as e:\n    open('said', 'w').write(str(e))\n",
    )
    line = f"{sys.executable} {path} >/dev/null 2>&1 & while ! test -e ready; do sleep 0.01; done"
    shell(repo, here, line)
    (here / "go").touch()
    eventually(lambda: (here / "said").exists() and (here / "said").read_text())
    assert "has ended: its `cas run` is gone" in (here / "said").read_text()
    assert only_run(repo)[1].status == "finished"


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "failed", 143)],
)
def test_a_signal_ends_the_program_and_the_run_is_committed(
    here: Path, number: int, status: str, code: int
) -> None:
    script(
        here, "open('ready', 'w').close()\nprint('hello', flush=True)\ntime.sleep(600)\n", "s.py"
    )
    child = subprocess.Popen(
        [CAS, "run", sys.executable, "s.py"], cwd=here, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    eventually((here / "ready").exists)
    if number == signal.SIGINT:
        os.killpg(child.pid, number)  # as a terminal does
    else:
        child.send_signal(number)
    assert child.wait(60) == code
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.status == status
    assert "hello" in text(repo, commit, "log.txt")


def test_the_log_of_a_killed_run_is_recovered(here: Path) -> None:
    line = "echo before; touch ready; exec sleep 600"
    child = subprocess.Popen(
        [CAS, "run", "-e", "e", "-p", "lr=1", "sh", "-c", line], cwd=here, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    eventually((here / "ready").exists)
    eventually(lambda: [p for p in (here / ".cas" / "journals").glob("*.log") if p.stat().st_size])
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    repo = opened(here)
    assert recover_lost(repo)
    _, commit = only_run(repo)
    assert commit.status == "crashed"
    assert text(repo, commit, "log.txt") == "before\n"
    assert repo.document(commit.tree, "params.json") == {"lr": 1}
    assert list((repo.path / "journals").iterdir()) == []
