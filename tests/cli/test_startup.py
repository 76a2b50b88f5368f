"""What starting a command imports: counted, not timed."""

import subprocess
import sys
from pathlib import Path

import pytest

from cas.repo.repo import Repo
from tests.support.builders import RunBuilder, noise

HEAVY = {
    *("numpy", "torch", "pandas", "rich", "rich_click", "git", "matplotlib", "sqlite3", "asyncio"),
    *("zstandard", "pyfastcdc", "subprocess", "tempfile", "json", "shutil"),
    *("importlib.metadata", "concurrent.futures"),
}
PROBE = """
import sys
before = set(sys.modules)
from cas.cli.main import run
code = run(sys.argv[1:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
sys.exit(code)
"""


def imported(place: Path, *args: str) -> set[str]:
    """Return the modules that a command imports beyond those of a bare interpreter."""
    command = [sys.executable, "-c", PROBE, *args]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.fixture
def small(repo: Repo) -> Repo:
    for name in ("one", "two", "three"):
        run = RunBuilder(repo, f"digits/{name}")
        for step in range(3):
            run.checkpoint(step, {"w": noise(step, 100)}, value=1 / (step + 1))
        run.finish({"loss": 0.1})
    return repo


def test_the_version_imports_nothing(place: Path) -> None:
    assert {name for name in imported(place, "--version") if "click" in name} == set()
    ours = {name for name in imported(place, "--version") if name.startswith("cas")}
    assert ours == {"cas", "cas.cli", "cas.cli.main"}


def test_the_help_imports_no_command(place: Path) -> None:
    ours = {name for name in imported(place, "--help") if name.startswith("cas.cli.")}
    expected = {"main", "group", "session", "exits"}
    assert ours == {f"cas.cli.{name}" for name in expected}


def test_listing_runs_imports_nothing_heavy(small: Repo, place: Path) -> None:
    modules = imported(place, "log", "-n", "20")
    assert HEAVY.isdisjoint(modules), HEAVY & modules
    ours = {name for name in modules if name.startswith("cas.")}
    assert not {name for name in ours if name.startswith(("cas.tracking", "cas.integrations"))}
    assert not ours & {"cas.store.writer", "cas.objects.tree", "cas.objects.manifest"}
    packages = {name.rpartition(".")[0] for name in ours}
    assert len(ours - packages) <= 43
