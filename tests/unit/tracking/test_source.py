"""The working tree is captured as it is, and the user's git does not notice."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cas.errors import NotFoundError
from cas.tracking.captured import gitprogram
from cas.tracking.captured import source as module
from cas.tracking.captured.source import LeftOut, Limits, Source, capture_source, read_source
from cas.tracking.privacy.secrets import REMOVED

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"


@pytest.fixture(autouse=True)
def own_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out, and repositories above the tests too."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    answer = subprocess.run(
        ["git", *who, "-c", "protocol.file.allow=always", *arguments],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return answer.stdout.decode().strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    git(folder, "init")
    (folder / ".gitignore").write_text("*.pt\n")
    (folder / "src" / "train.py").write_text("print(1)\n")
    (folder / "gone.py").write_text("")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o775)
    (folder / "link").symlink_to("src/train.py")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def paths(source: Source) -> list[str]:
    return [os.fsdecode(file.path) for file in source.files]


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_clean_tree_is_its_commit(project: Path) -> None:
    entry = project / "src" / "train.py"
    source = capture_source(entry, project / "src")
    assert source.top == project
    assert paths(source) == [".gitignore", "gone.py", "link", "run.sh", "src/train.py"]
    assert {(file.kind, file.mode) for file in source.files} == {
        ("file", 0o644), ("link", 0), ("file", 0o755)
    }  # fmt: skip
    assert source.info == {
        "git": {"commit": git(project, "rev-parse", "HEAD"), "branch": "main", "dirty": False},
        "entry": "src/train.py",
        "cwd": "src",
    }
    assert (source.cwd, source.left_out, source.problems) == ("src", (), ())
    assert read_source(source.files[2]) == b"src/train.py"
    assert read_source(source.files[4]) == b"print(1)\n"


def test_uncommitted_and_untracked_code_is_captured_and_ignored_files_are_not(
    project: Path,
) -> None:
    (project / "src" / "train.py").write_text(f"token = '{TOKEN}'\n")
    (project / "gone.py").unlink()
    (project / "new\nname.py").write_text("")
    (project / "weights.pt").write_bytes(b"x")
    (project / ".env").write_text("A=1")
    (project / "b.bin").write_bytes(b"\0" + TOKEN.encode())
    (project / os.fsdecode(b"caf\xe9.py")).write_text("")
    os.mkfifo(project / "pipe")
    source = capture_source(None, project)
    assert sorted(os.fsencode(path) for path in paths(source)) == [
        b".gitignore", b"b.bin", b"caf\xe9.py", b"link", b"new\nname.py", b"run.sh", b"src/train.py"
    ]  # fmt: skip
    assert source.info["git"]["dirty"] is True
    assert source.left_out == (LeftOut(b".env", "named like a file of secrets", 3),)
    assert str(source.left_out[0]) == ".env (3 bytes): named like a file of secrets"
    contents = {file.path: read_source(file) for file in source.files}
    assert contents[b"src/train.py"] == f"token = '{REMOVED}'\n".encode()
    assert contents[b"b.bin"].endswith(TOKEN.encode())


def test_the_users_git_stays_byte_for_byte_as_it_was(project: Path) -> None:
    # Same content, other times: exactly when `git status` would refresh the index.
    os.utime(project / "run.sh", ns=(10**18, 10**18))
    (project / "src" / "train.py").write_text("print(2)\n")
    before = everything(project / ".git")
    capture_source(project / "src" / "train.py", project)
    assert everything(project / ".git") == before


def test_the_remote_is_known_without_its_password(project: Path) -> None:
    git(project, "remote", "add", "upstream", "https://me:secret@example.org/a.git")
    assert capture_source(None, project).info["git"]["remote"] == "https://example.org/a.git"
    git(project, "remote", "add", "origin", "git@example.org:b.git")
    assert capture_source(None, project).info["git"]["remote"] == "git@example.org:b.git"
    git(project, "config", "branch.main.remote", "upstream")
    assert capture_source(None, project).info["git"]["remote"] == "https://example.org/a.git"


def test_a_detached_or_unborn_head_is_no_branch_or_commit(project: Path, tmp_path: Path) -> None:
    git(project, "checkout", "--detach")
    assert "branch" not in capture_source(None, project).info["git"]
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init")
    (fresh / "a.py").write_text("")
    source = capture_source(None, fresh)
    assert paths(source) == ["a.py"]
    assert source.info["git"] == {"branch": "main", "dirty": True}


def test_submodules_are_captured_and_other_repositories_left_out(
    project: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", str(project), str(other))
    git(project, "submodule", "add", str(other), "lib")
    git(project, "commit", "-m", "lib")
    git(tmp_path, "clone", str(other), str(project / "nested"))
    source = capture_source(None, project)
    assert source.info["submodules"] == {"lib": git(other, "rev-parse", "HEAD")}
    assert source.left_out == (LeftOut(b"nested/", "a repository of its own"),)
    below = [path for path in paths(source) if path.startswith(("lib/", "nested/"))]
    assert below == [f"lib/{path}" for path in git(other, "ls-files").splitlines()]


def test_what_a_limit_leaves_out_is_listed_and_code_comes_first(project: Path) -> None:
    (project / "a.csv").write_bytes(b"x" * 500)
    (project / "big.csv").write_bytes(b"x" * 2000)
    source = capture_source(None, project, limits=Limits(file_bytes=1000, total_bytes=200))
    assert "src/train.py" in paths(source)
    assert source.left_out == (
        LeftOut(b"a.csv", "more than 200 bytes in all", 500),
        LeftOut(b"big.csv", "larger than 1000 bytes", 2000),
    )
    few = capture_source(None, project, limits=Limits(files=3))
    assert paths(few) == ["gone.py", "run.sh", "src/train.py"]
    assert len(few.left_out) == 4
    seen = capture_source(None, project, limits=Limits(visited=1))
    assert paths(seen) == ["gone.py"]
    assert seen.left_out == (LeftOut(b"", "what lies beyond 1 files was not looked at"),)


def test_a_long_list_of_what_is_left_out_is_cut(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LISTED", 2)
    source = capture_source(None, project, limits=Limits(files=0))
    assert [item.reason for item in source.left_out][-1] == "and 3 more"
    assert len(source.left_out) == 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "plain"
    for name in ("train.py", "lib/a.py", "conf.yaml", "data.csv", ".hidden/x.py", "Makefile"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    for name in ("venv/pyvenv.cfg", "venv/lib/b.py", "node_modules/c.js", "__pycache__/d.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "huge.py").write_bytes(b"x" * 2000)
    (folder / "run").write_text("x")
    return folder


def test_without_git_it_is_the_code_in_the_entry_points_folder(folder: Path) -> None:
    source = capture_source(folder / "run", folder / "lib", limits=Limits(code_bytes=1000))
    assert paths(source) == ["Makefile", "conf.yaml", "lib/a.py", "run", "train.py"]
    assert (source.top, source.cwd) == (folder, "lib")
    assert source.info == {"entry": "run", "cwd": "lib"}


def test_without_the_program_git_it_is_the_folder_too(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    source = capture_source(project / "src" / "train.py", project)
    assert paths(source) == ["train.py"]
    assert "git cannot be started" in source.problems[0]


def test_a_git_that_fails_or_hangs_is_a_problem_told(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'fatal: dubious ownership' >&2\nexit 128\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    source = capture_source(project / "src" / "train.py", project / "src")
    assert source.problems == ("git rev-parse failed: fatal: dubious ownership",)
    assert paths(source) == ["train.py"]
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(gitprogram, "FIRST_SECONDS", 0.05)
    assert "took more than" in capture_source(None, project).problems[0]


def test_only_the_top_of_a_home_folder_is_captured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert "lib/a.py" not in paths(capture_source(folder / "train.py", folder))


def test_an_installed_program_is_not_the_users_code(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.prefix", str(project / "venv"))
    source = capture_source(project / "venv" / "bin" / "torchrun", project / "src")
    assert source.top == project
    assert "entry" not in source.info


def test_nothing_to_capture_is_told_and_fails_nothing(tmp_path: Path) -> None:
    source = capture_source(None, tmp_path)
    assert (source.files, source.cwd) == ((), ".")
    assert source.problems == ("no script and no git repository: no code was captured",)
    gone = capture_source(tmp_path / "gone" / "x.py", tmp_path / "gone")
    assert gone.files == ()


def test_a_file_that_is_gone_or_grown_is_told_or_cut(folder: Path) -> None:
    source = capture_source(folder / "train.py", folder)
    file = next(file for file in source.files if file.path == b"train.py")
    assert read_source(file, limit=0) == b""
    with pytest.raises(NotFoundError):
        read_source(replace(file, absolute=folder / "gone"))


def test_a_program_that_is_no_file_has_the_code_of_its_folder(folder: Path) -> None:
    source = capture_source(None, folder, program=True, limits=Limits(code_bytes=1000))
    assert paths(source) == ["Makefile", "conf.yaml", "lib/a.py", "train.py"]
    assert (source.top, source.cwd, source.info) == (folder, ".", {"cwd": "."})
    assert source.problems == ()


def test_a_file_with_a_secret_in_its_name_is_left_out(
    project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
    for top in (project, folder):
        (top / f"of-{token}").mkdir()
        (top / f"of-{token}" / "a.py").write_text("")
        (top / "leads.py").symlink_to(f"https://host.example/{token}")
        (top / "plain.py").symlink_to("train.py")
        monkeypatch.setattr("tempfile.gettempdir", lambda: "/nowhere")
        source = capture_source(top / "train.py", top)
        assert "plain.py" in paths(source)
        assert not [path for path in paths(source) if token in path or path == "leads.py"]
        why = "a secret stands in its name, or in where it leads"
        assert [str(one) for one in source.left_out] == [
            f"leads.py ({21 + len(token)} bytes): {why}",
            f"of-{REMOVED}/a.py (0 bytes): {why}",
        ]
