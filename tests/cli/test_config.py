"""`cas config` knows its keys."""

import pytest

from cas.repo.config import SETTINGS
from cas.repo.repo import Repo
from tests.cli.conftest import Cas


def test_settings_are_set_shown_and_unset(cas: Cas, repo: Repo) -> None:
    assert cas("config", "--json").json == {}
    assert cas("config", "monitor", "val loss").code == 0
    assert cas("config", "mode", "max").code == 0
    assert cas("config", "monitor").out == "val loss\n"
    assert cas("config", "--json").json == {"monitor": "val loss", "mode": "max"}
    assert cas("config", "--unset", "mode").code == 0
    assert cas("config", "mode").code == 3
    assert not list(repo.path.glob("config.json.*"))


def test_all_settings_are_listed_with_what_they_mean(cas: Cas, repo: Repo) -> None:
    cas("config", "author", "Ada")
    lines = cas("config").lines
    assert [line.split()[0] for line in lines] == list(SETTINGS)
    assert "Ada" in lines[0]


@pytest.mark.parametrize(
    "args",
    [
        ["nope"],
        ["nope", "x"],
        ["mode", "best"],
        ["repack", "on"],
        ["author", "a\nb"],
        ["--unset"],
        ["author", ""],
    ],
)
def test_wrong_calls(cas: Cas, repo: Repo, args: list[str]) -> None:
    result = cas("config", *args)
    assert result.code == 2
    if args[0] == "nope":
        assert "author, experiment, monitor, mode" in result.err


def test_what_a_newer_version_has_set_stays(cas: Cas, repo: Repo) -> None:
    (repo.path / "config.json").write_text('{"future": [1], "mode": "min"}')
    cas("config", "mode", "max")
    assert cas("config", "--json").json == {"future": [1], "mode": "max"}


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_damaged_file_is_said_to_be_damaged(cas: Cas, repo: Repo, text: str) -> None:
    (repo.path / "config.json").write_bytes(text.encode("latin-1"))
    assert cas("config").code == 7
    assert cas("log").code == 0
