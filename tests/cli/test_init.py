"""`cas init` makes a repository where one belongs, once."""

import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Cas


def test_makes_a_repository_that_later_commands_find(cas: Cas, place: Path) -> None:
    result = cas("init", "--json")
    assert result.json == {"path": str(place / ".cas"), "created": True}
    assert cas("status", "--json").json["path"] == str(place / ".cas")


def test_an_existing_repository_stays_as_it_is(cas: Cas, place: Path) -> None:
    cas("init")
    before = (place / ".cas" / "format").read_bytes()
    assert cas("init", "--json").json["created"] is False
    assert (place / ".cas" / "format").read_bytes() == before


def test_beside_git_it_stands_in_gits_own_folder(cas: Cas, place: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=place, check=True)
    (place / "sub").mkdir()
    assert cas("-C", "sub", "init", "--json").json["path"] == str(place / ".git" / "cas")
    status = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"], cwd=place, capture_output=True, check=True
    )
    assert status.stdout == b""


def test_cas_dir_says_where(cas: Cas, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAS_DIR", str(place / "store"))
    assert cas("init", "--json").json["path"] == str(place / "store" / ".cas")
    assert cas("status", "--json").json["path"] == str(place / "store" / ".cas")
