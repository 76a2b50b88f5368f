"""The frame: help, versions, global options, and one line with an exit code for every error."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from cas import __version__
from cas.cli import exits
from cas.cli.group import COMMANDS, group
from cas.cli.main import run
from cas.cli.session import Session
from cas.errors import (
    AmbiguousError,
    BackendError,
    CasError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NoRepositoryError,
    NotFoundError,
    OutcomeUnknownError,
    ReadOnlyError,
    RefusedError,
    StorageFullError,
    TrackingError,
    UnstorableError,
    UnsupportedError,
)
from cas.repo.repo import Repo
from tests.cli.conftest import Cas

CODES = [
    (InvalidInputError("x"), 2),
    (UnstorableError("model.x", "no"), 2),
    (NotFoundError("revision", "x"), 3),
    (NoRepositoryError("/x"), 3),
    (AmbiguousError("x", ["a", "b"]), 4),
    (ConflictError("x"), 5),
    (RefusedError("x"), 6),
    (CorruptionError("x"), 7),
    (UnsupportedError("x"), 8),
    (BackendError("x"), 9),
    (OutcomeUnknownError("op", "x"), 9),
    (StorageFullError("x"), 10),
    (ReadOnlyError("x"), 11),
    (TrackingError("x"), 12),
    (CasError("x"), 1),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_every_error_has_the_code_of_its_category(error: CasError, code: int) -> None:
    assert exits.code_of(error) == code


def test_every_code_has_a_meaning_in_the_help(cas: Cas) -> None:
    assert {code for _, code in CODES} <= {code for code, _ in exits.MEANINGS}
    told = cas("--help").out
    for code, meaning in exits.MEANINGS:
        assert f"{code} " in told
        assert meaning in told


def test_help_names_every_command(cas: Cas) -> None:
    told = cas("--help").out
    for name, line in COMMANDS.items():
        assert f"{name} " in told
        assert line in " ".join(told.split())


def test_no_arguments_are_a_call_for_help(cas: Cas) -> None:
    assert cas().out == cas("--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_of_itself_what_the_table_says(name: str) -> None:
    if not (Path(__file__).parents[2] / "cli" / f"{name}.py").exists():
        pytest.skip("not written yet")
    context = click.Context(group)
    command = group.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert command.help is not None
    assert command.help.splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize("args", [["--version"], ["-C", ".", "--version"]])
def test_the_version(cas: Cas, args: list[str]) -> None:
    assert cas(*args).out == f"cas {__version__}\n"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["lgo"], 2, "did you mean `cas log`"),
        (["log", "--nope"], 2, "--nope"),
        (["log", "-n", "many"], 2, "many"),
        (["commit"], 2, "PATH"),
        (["cat"], 2, "REV:PATH"),
        (["-v"], 2, "command"),
        (["-C", "nowhere", "log"], 3, "nowhere"),
        (["log"], 3, "cas init"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_call_gets_one_line(cas: Cas, args: list[str], code: int, said: str) -> None:
    result = cas(*args)
    assert result.code == code
    assert said.lower() in result.err.lower()
    assert result.out == ""


def test_dash_c_works_as_in_git(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    assert cas("-C", "a", "-C", "b", "status", "--json").json["path"] == str(repo.path)


def test_cas_dir_names_the_repository(
    cas: Cas, repo: Repo, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert cas("status").code == 3
    monkeypatch.setenv("CAS_DIR", str(repo.path))
    assert cas("status", "--json").json["path"] == str(repo.path)


Fail = Callable[[BaseException], None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let every command fail when it opens the repository."""

    def plant(error: BaseException) -> None:
        def fails(_: object) -> None:
            raise error

        monkeypatch.setattr(Session, "repo", property(fails))

    return plant


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("two\nlines"), 70, "cas --debug"),
        (OSError(28, "No space left on device", "/x/y"), 10, "no space left"),
        (PermissionError(13, "Permission denied", "/x/y"), 9, "/x/y: Permission denied"),
        (FileNotFoundError(2, "No such file", "/x/y"), 3, "/x/y"),
        (MemoryError(), 9, "out of memory"),
        (CorruptionError("a\x1b[31m\nb"), 7, "a\\x1b[31m"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_whatever_happens_is_one_line(
    cas: Cas, fail: Fail, error: BaseException, code: int, said: str
) -> None:
    fail(error)
    result = cas("status")
    assert result.code == code
    assert said in result.err
    assert result.err.count("\n") == 1
    assert "\x1b" not in result.err


def test_ctrl_c_is_quiet(fail: Fail, capsys: pytest.CaptureFixture[str]) -> None:
    fail(KeyboardInterrupt())
    assert run(["status"]) == 130
    assert capsys.readouterr() == ("", "")


def test_debug_adds_the_traceback(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--debug", "status"]) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("cas: repository")


def test_a_reader_that_went_away_is_no_error(repo: Repo, place: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cas", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == exits.BROKEN_PIPE


def test_a_full_disk_behind_standard_output(repo: Repo, place: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "cas", "status"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 10
    assert done.stderr.decode().count("\n") == 1
    assert b"no space left where the output goes" in done.stderr


def test_without_a_terminal_there_are_no_colours(cas: Cas, repo: Repo) -> None:
    assert Session().colour is False
    assert "\x1b" not in cas("status").out


def test_an_empty_dash_c_stays_here_as_in_git(cas: Cas, repo: Repo) -> None:
    assert cas("-C", "", "status", "--json").json["path"] == str(repo.path)


def test_a_word_that_nobody_can_read_is_told_by_its_ends(cas: Cas, repo: Repo) -> None:
    result = cas("show", f"begin{'x' * 5000}end")
    assert result.code == 3
    assert len(result.err) < 400
    assert "begin" in result.err
    assert "xend" in result.err


def test_in_a_folder_that_is_gone(
    cas: Cas, place: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path_factory.mktemp("gone")
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = cas("log")
    assert result.code == 3
    assert "was deleted" in result.err
    monkeypatch.chdir(place)


def test_where_cas_dir_leads_is_said(
    cas: Cas, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAS_DIR", "/nowhere")
    result = cas("log")
    assert result.code == 3
    assert "/nowhere, as CAS_DIR says" in result.err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed(place: Path, closed: str) -> None:
    (place / "x").write_bytes(b"data")
    cas = f"{sys.executable} -m cas"
    script = f"{cas} init {closed} && {cas} commit x {closed} && {cas} fsck --full"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all is well" in done.stdout
    assert "error" not in done.stderr


def test_empty_names_are_no_names(cas: Cas, repo: Repo) -> None:
    for line in (["commit", ""], ["checkout", "HEAD", "--to", ""], ["whence", ""]):
        result = cas(*line)
        assert (result.code, "empty" in result.err) == (2, True), line
    for line in (["-e", "", "true"], ["-o", "", "true"], ["-i", "", "true"], ["--", ""]):
        result = cas("run", *line)
        assert (result.code, "empty" in result.err) == (2, True), line
    assert repo.refresh().refs == {}


def test_an_option_that_run_does_not_know_is_no_program(cas: Cas, repo: Repo) -> None:
    result = cas("run", "--bogus", "--", "true")
    assert result.code == 2
    assert "option" in result.err.lower()


@pytest.mark.parametrize(
    "options", [["--tolerance", "nan"], ["--tolerance", "inf"], ["--python", "nowhere"]]
)
def test_a_wrong_call_makes_no_verdict(cas: Cas, repo: Repo, options: list[str]) -> None:
    result = cas("reproduce", "HEAD", *options)
    assert result.code == 2
    assert options[0] in result.err
