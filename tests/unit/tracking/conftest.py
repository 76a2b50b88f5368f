"""What the tests of tracking share: a folder of their own, and no run left open behind a test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.tracking.ends import ending


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project to work in, which is nobody's git."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("CAS_", "GIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.chdir(folder)
    yield folder
    for end in list(ending._hooks.open):
        end("finished", None)
