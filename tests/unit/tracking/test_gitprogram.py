"""Git is asked for the folder's own repository, runs nothing of it, and is not waited for long."""

import os
import time
from pathlib import Path

import pytest

import cas
from cas.tracking import reproduce
from cas.tracking.captured import gitprogram
from cas.tracking.captured.source import LeftOut, capture_source
from tests.support.runs import eventually, only_run, opened, python
from tests.unit.tracking.test_gitstate import git

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"


@pytest.fixture
def project(here: Path) -> Path:
    git(here, "init")
    (here / "train.py").write_text("print(1)\n")
    git(here, "add", ".")
    git(here, "commit", "-m", "first")
    return here


def program(folder: Path, text: str) -> str:
    """Make a program `git`; return a PATH on which it is found first."""
    folder.mkdir(exist_ok=True)
    (folder / "git").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "git").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_DIR": "{other}/.git"},
        {"GIT_DIR": "{other}/.git", "GIT_WORK_TREE": "{other}"},
        {"GIT_INDEX_FILE": "{other}/.git/index"},
        {"GIT_OBJECT_DIRECTORY": "{other}/nowhere", "GIT_PREFIX": "sub/"},
    ],
)
def test_another_repository_that_variables_name_is_not_this_one(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", str(project), str(other))
    (other / "theirs.py").write_text("")
    git(other, "add", ".")
    git(other, "commit", "-m", "theirs")
    plain = capture_source(project / "train.py", project)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(other=other))
    assert capture_source(project / "train.py", project) == plain
    assert plain.problems == ()


def test_nothing_of_the_repository_is_executed(project: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was-here"
    hook = tmp_path / "hooks" / "post-index-change"
    hook.parent.mkdir()
    for place in (hook, tmp_path / "run"):
        place.write_text(f"#!/bin/sh\ntouch {mark}\n")
        place.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "core.sshCommand", "core.editor"):
        git(project, "config", key, str(tmp_path / "run"))
    git(project, "config", "core.hooksPath", str(hook.parent))
    os.utime(project / "train.py", (1, 1))
    index = (project / ".git" / "index").read_bytes()
    assert capture_source(project / "train.py", project).info["git"]["dirty"] is False
    assert not mark.exists()
    assert (project / ".git" / "index").read_bytes() == index
    git(project, "status")  # a plain one is served by what was set
    assert mark.exists()


def test_a_git_that_sleeps_is_asked_once_and_leaves_nothing_behind(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "sub").mkdir()
    alive = tmp_path / "pid"
    monkeypatch.setenv("PATH", program(tmp_path / "bin", f"sleep 300 & echo $! > {alive}; wait"))
    monkeypatch.setattr(gitprogram, "FIRST_SECONDS", 0.3)
    began = time.monotonic()
    source = capture_source(project / "sub" / "x.py", project)  # two places to look at
    assert time.monotonic() - began < 3
    assert source.problems == ("git rev-parse took more than 0.3 seconds",)
    child = int(alive.read_text())
    eventually(lambda: not Path(f"/proc/{child}").exists() or "Z" in _state(child))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_slow_status_costs_what_it_would_have_told_and_no_more(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(project, "rev-parse", "HEAD")
    git(project, "tag", "v1")
    real = next(p for p in os.environ["PATH"].split(":") if os.path.exists(f"{p}/git"))
    slow = f'case "$*" in *status*) exec sleep 300;; *) exec {real}/git "$@";; esac'
    monkeypatch.setenv("PATH", program(tmp_path / "bin", slow))
    monkeypatch.setattr(gitprogram, "SECONDS", 1.0)
    source = capture_source(project / "train.py", project)
    assert source.info["git"] == {"commit": commit, "branch": "main", "tags": ["v1"]}
    assert [file.path for file in source.files] == [b"train.py"]
    assert source.problems == ("git status took more than 1 seconds",)


def test_a_submodule_is_captured_as_it_lies_there(project: Path, tmp_path: Path) -> None:
    inner, lib = tmp_path / "inner", tmp_path / "lib"
    for folder in (inner, lib):
        folder.mkdir()
        git(folder, "init")
        (folder / "a.py").write_text("x = 1\n")
        git(folder, "add", ".")
        git(folder, "commit", "-m", "a")
    git(lib, "submodule", "add", str(inner), "deep")
    git(lib, "commit", "-m", "deep")
    git(project, "submodule", "add", str(lib), "lib")
    git(project, "submodule", "update", "--init", "--recursive")
    git(project, "submodule", "add", str(inner), "gone")
    git(project, "commit", "-m", "both")
    git(project, "submodule", "deinit", "-f", "gone")
    (project / "lib" / "a.py").write_text("x = 2\n")
    (project / "lib" / "new.py").write_text("")
    git(project / "lib", "commit", "-am", "further")
    source = capture_source(project / "train.py", project)
    assert [os.fsdecode(file.path) for file in source.files] == [
        ".gitmodules", "lib/.gitmodules", "lib/a.py", "lib/deep/a.py", "lib/new.py", "train.py"
    ]  # fmt: skip
    assert source.info["submodules"] == {
        "gone": git(inner, "rev-parse", "HEAD"),
        "lib": git(project / "lib", "rev-parse", "HEAD"),  # not the commit that is recorded
        "lib/deep": git(inner, "rev-parse", "HEAD"),
    }
    assert source.left_out == (LeftOut(b"gone", "a submodule whose files are not there"),)
    within = capture_source(project / "lib" / "a.py", project / "lib")
    assert within.top == project / "lib"
    assert within.info["entry"] == "a.py"


def test_a_submodule_behind_a_link_is_somebody_elses(project: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    git(tmp_path, "clone", str(project), str(lib))
    git(project, "submodule", "add", str(lib), "lib")
    git(project, "commit", "-m", "lib")
    os.rename(project / "lib", tmp_path / "moved")
    (project / "lib").symlink_to(lib)
    source = capture_source(project / "train.py", project)
    assert [file.path for file in source.files if b"lib/" in file.path] == []


def test_a_run_with_a_submodule_is_reproduced(project: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    lib.mkdir()
    git(lib, "init")
    (lib / "part.py").write_text("VALUE = 3\n")
    git(lib, "add", ".")
    git(lib, "commit", "-m", "a")
    git(project, "submodule", "add", str(lib), "lib")
    (project / "train.py").write_text(
        "import cas\nfrom lib.part import VALUE\n"
        'with cas.track("x", name="a", seed=0) as run:\n    run.log_metrics({"v": VALUE})\n'
    )
    python(project, "train.py")
    repo = opened(project)
    verdict, _ = reproduce.execute(repo, reproduce.plan(repo, only_run(repo)[0]))
    assert verdict.verdict == "identical"


def test_names_that_are_no_text_and_a_huge_file_are_no_trouble(project: Path) -> None:
    odd = os.fsencode(project) + b"/n\xff\n me.py"
    Path(os.fsdecode(odd)).write_text("x = 1\n")
    with open(project / "data.bin", "wb") as huge:
        huge.truncate(2**40)
    cas.track("x", name="a").finish()
    repo = opened(project)
    _, commit = only_run(repo)
    code = repo.lookup(commit.tree, b"code")
    assert code is not None
    assert b"n\xff\n me.py" in [entry.name for entry in repo.entries(code.id)]
    host = repo.document(commit.tree, "host.json")
    assert isinstance(host, dict)
    assert host["left_out"] == [f"data.bin ({2**40} bytes): larger than 10485760 bytes"]


def test_what_git_complains_of_is_told_without_secrets(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = f"fatal: unable to access 'https://me:{TOKEN}@host/a.git'"
    monkeypatch.setenv("PATH", program(tmp_path / "bin", f'echo "{told}" >&2; exit 128'))
    problem = capture_source(project / "train.py", project).problems[0]
    assert TOKEN not in problem
    assert "unable to access" in problem
