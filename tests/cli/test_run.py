"""`cas run`: any command as a run; what it prints and its exit code are the command's own."""

import subprocess
from pathlib import Path

import pytest

from tests.support.runs import CAS, cas, environment, only_run, opened, points, run, text


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


def test_output_and_exit_code_are_the_commands_own(here: Path) -> None:
    done = cas(here, "run", "--", "sh", "-c", "echo out; echo err >&2; exit 4", code=4)
    assert done.stdout == "out\n"
    repo = opened(here)
    id, commit = only_run(repo)
    made, begun, *rest = done.stderr.splitlines()
    assert made == f"cas: made a repository in {here}/.cas"
    assert begun == f"cas: run {commit.full_name} in {here}/.cas"
    output, ended = rest
    assert output == "err"
    assert ended.startswith(f"cas: {commit.full_name} is {id.short}, exit code 4, stored ")
    assert (commit.status, commit.experiment) == ("failed", "sh")


def test_bytes_go_through_as_they_are(here: Path) -> None:
    cas(here, "init")
    raw = bytes(range(256)) * 300
    (here / "raw").write_bytes(raw)
    done = subprocess.run(
        [CAS, "run", "cat", "raw"], cwd=here, env=environment(), capture_output=True, check=True
    )
    assert done.stdout == raw


def test_a_program_that_a_signal_ends_gives_the_code_that_a_shell_gives(here: Path) -> None:
    cas(here, "run", "sh", "-c", "kill -9 $$", code=137)
    assert only_run(opened(here))[1].status == "failed"


def test_options_of_the_command_are_its_own_and_become_params(here: Path) -> None:
    (here / "m.json").write_text('[{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]')
    (here / "data").mkdir()
    (here / "data" / "x").write_text("1")
    cas(
        here, "run", "-e", "exp/sub", "-p", "a=1", "-p", "on=true", "-i", "data",
        "-o", "o.txt", "--metrics", "m.json",
        "sh", "-c", "echo $0 $@ > o.txt", "-p", "x", "--lr", "0.5", "-e", "y", "--name=z",
    )  # fmt: skip
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.experiment == "exp/sub"
    assert text(repo, commit, "artifacts/o.txt") == "-p x --lr 0.5 -e y --name=z\n"
    params = repo.document(commit.tree, "params.json")
    assert params == {"a": 1, "on": True, "lr": 0.5, "name": "z"}
    assert points(repo, commit) == {"loss": [(1, 0.5), (2, 0.25)]}
    assert commit.monitor is not None
    assert commit.monitor.value == 0.25
    assert commit.parents[0].attrs["at"] == "data"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["no-such-program"], 2, "cannot run no-such-program"),
        (["-i", "nowhere", "true"], 2, "no such data"),
        (["-p", "lr", "true"], 2, "-p takes NAME=VALUE"),
        (["-e", "a b", "true"], 2, "cannot name an experiment"),
        ([], 2, "Missing argument"),
    ],
)
def test_a_wrong_call_is_one_line_and_no_run(
    here: Path, args: list[str], code: int, said: str
) -> None:
    cas(here, "init")
    done = cas(here, "run", *args, code=code)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert dict(opened(here).root.refs) == {}


def test_what_could_not_be_had_is_told_and_the_run_is_committed(here: Path) -> None:
    (here / "m.json").write_text("{")
    done = cas(here, "run", "-o", "nothing", "--metrics", "m.json", "true")
    assert "cas: cannot read metrics from" in done.stderr
    assert "cas: output nothing: cannot read" in done.stderr
    assert only_run(opened(here))[1].status == "finished"


def test_it_works_from_the_folder_that_is_told(here: Path) -> None:
    (here / "sub").mkdir()
    cas(here, "-C", "sub", "run", "sh", "-c", "pwd > here.txt")
    assert (here / "sub" / "here.txt").read_text() == f"{here}/sub\n"
    assert (here / "sub" / ".cas").is_dir()


def test_in_a_pipe_nothing_is_lost(here: Path) -> None:
    cas(here, "init")
    done = run(here, "sh", "-c", f"{CAS} run seq 100000 | head -n 1; echo $?")
    assert done.stdout.split() == ["1", "0"]
    assert text(opened(here), only_run(opened(here))[1], "log.txt").endswith("\n100000\n")
