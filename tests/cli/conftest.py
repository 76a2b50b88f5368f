"""The command line in this process: `cas("log", "-n", "3")` in a repository of its own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from cas.cli.main import run
from cas.cli.session import Session
from cas.repo.repo import Repo
from tests.support.builders import repository


@dataclass(frozen=True, slots=True)
class Result:
    """What one command line did."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class Cas(Protocol):
    def __call__(self, *args: str, session: Session | None = None) -> Result: ...


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in, outside of any repository."""
    for name in ("CAS_DIR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def repo(place: Path) -> Repo:
    """An empty repository in the folder that commands run in."""
    return repository(place)


@pytest.fixture
def cas(place: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Cas:
    """Run a command line; an error must be one line, and never a traceback."""

    def call(*args: str, session: Session | None = None) -> Result:
        capsysbinary.readouterr()
        code = run(list(args), session)
        captured = capsysbinary.readouterr()
        err = captured.err.decode()
        assert "Traceback" not in err
        if code and session is None:
            assert err.startswith("cas: ")
            assert err.count("\n") == 1
        return Result(code, captured.out, err)

    return call
