"""What git says is recorded, and where it cannot be asked, what its files say; never an error."""

import os
import subprocess
from pathlib import Path

import pytest

import cas
from cas.tracking.captured import gitstate
from cas.tracking.captured.gitfiles import git_folder, head
from cas.tracking.captured.source import capture_source
from tests.support.runs import only_run, opened

WHO = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *WHO, "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return done.stdout.decode().strip()


@pytest.fixture
def project(here: Path) -> Path:
    git(here, "init")
    (here / "train.py").write_text("print(1)\n")
    git(here, "add", ".")
    git(here, "commit", "-m", "first")
    return here


def test_tags_a_detached_head_and_a_shallow_clone_are_told(project: Path, tmp_path: Path) -> None:
    git(project, "tag", "v1")
    git(project, "tag", "-a", "-m", "x", "released")
    (project / "train.py").write_text("print(2)\n")
    git(project, "commit", "-am", "second")
    assert not {"tags", "detached", "shallow"} & gitstate.read(project).info.keys()
    git(project, "checkout", "--detach", "HEAD~")
    found = gitstate.read(project).info
    assert (found["tags"], found["detached"]) == (["released", "v1"], True)
    assert "branch" not in found
    git(project, "checkout", "main")
    git(tmp_path, "clone", "--depth", "1", f"file://{project}", "shallow")
    assert gitstate.read(tmp_path / "shallow").info["shallow"] is True


def test_a_repository_without_a_commit_is_no_detached_head(here: Path) -> None:
    git(here, "init")
    state = gitstate.read(here)
    assert state.info == {"dirty": False, "branch": "main"}
    assert state.problems == ()


def test_an_owner_that_git_distrusts_is_told_with_commit_and_branch(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(project, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    source = capture_source(project / "train.py", project)
    assert source.info["git"] == {"commit": commit, "branch": "main"}
    assert "dubious ownership" in source.problems[0]
    assert [file.path for file in source.files] == [b"train.py"]


def test_without_the_program_its_files_are_read(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(project, "rev-parse", "HEAD")
    git(project, "worktree", "add", "../other", "-b", "topic/x")
    git(project, "checkout", "--detach")
    git(project, "pack-refs", "--all")
    monkeypatch.setenv("PATH", str(project / "nowhere"))
    assert gitstate.read(project).info == {"commit": commit}
    other = capture_source(project.parent / "other" / "train.py", project)
    assert other.info["git"] == {"commit": commit, "branch": "topic/x"}
    assert "git cannot be started" in other.problems[0]


def test_odd_files_of_git_tell_nothing(here: Path) -> None:
    assert git_folder(here) is None
    (here / ".git").write_text("")
    assert git_folder(here) is None
    (here / ".git").unlink()
    (here / ".git").mkdir()
    for told in ("", "nonsense", "ref: refs/heads/../../../etc/passwd", "ref: refs/heads/gone"):
        (here / ".git" / "HEAD").write_text(told)
        assert "commit" not in head(here / ".git")
    (here / ".git" / "HEAD").write_text(
        "ref: refs/heads/ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1z"
    )
    assert head(here / ".git") == {"branch": "ghp_aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1z"}
    (here / ".git" / "HEAD").write_text(
        "ref: refs/heads/ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
    )
    assert head(here / ".git") == {"branch": "[secret removed]"}


def test_a_user_without_a_name_a_home_or_git_is_tracked(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("PATH", str(here / "nowhere"))
    with pytest.raises(RuntimeError):
        Path.home()
    (here / "lib").mkdir()
    (here / "lib" / "a.py").write_text("")
    (here / "train.py").write_text("")
    source = capture_source(here / "train.py", here)
    assert [file.path for file in source.files] == [b"lib/a.py", b"train.py"]
    assert source.problems == ()
    cas.track("x", name="a").finish()
    _, commit = only_run(opened(here))
    assert commit.author is not None
    assert commit.author.startswith(f"uid {2**31 - 7}@")
