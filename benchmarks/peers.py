"""The tools that are measured side by side: how each stores, restores and is had.

A tool works in a folder of its own ("home") that holds the given files as `data`. Which ones sync
what they store was seen with strace (restic 0.14, borg 1.2.4, git 2.39, git-lfs 3.3, dvc 3.67,
hf-xet 1.8, which sync a database of theirs and not the data): behind the others runs
`sync -f` of the store, within the measured time, so that all are equally durable.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import FailedError, Usage, run

Command = tuple[str, ...]
ROOT = Path(__file__).parents[1]
BENCH = ROOT / ".bench"
PEER_PYTHON = BENCH / "venv" / "bin" / "python"
DEBIAN = ("restic", "borgbackup", "git-lfs", "git")
PYPI = ("dvc==3.67.1", "hf-xet==1.8.0", "safetensors==0.8.0", "numpy")
XET = (str(PEER_PYTHON), str(ROOT / "benchmarks" / "peer_xet.py"))
ZIPNN = (str(PEER_PYTHON), str(ROOT / "benchmarks" / "peer_zipnn.py"))
CAS = (sys.executable, "-m", "cas")
GIT = ("git", "-c", "gc.auto=0")


@dataclass(frozen=True, slots=True)
class Tool:
    """The command lines of a tool; {home}, {target} and {number} are filled in."""

    name: str
    syncs: bool
    init: Sequence[Command]
    add: Sequence[Command]
    restore: Sequence[Command]
    store: str = "store"
    in_place: bool = False  # it restores over `data` in its home, not into a target
    needs: str = ""  # a program or a file that must be there
    about: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def durability(self) -> str:
        return "syncs itself" if self.syncs else "sync -f added"

    def missing(self) -> str:
        """Return why the tool cannot be used, or an empty text."""
        there = shutil.which(self.needs) or Path(self.needs).exists()
        return "" if there or not self.needs else f"{self.name} is not installed"

    def folder(self, home: Path) -> Path:
        return home / self.store

    def prepare(self, home: Path) -> None:
        """Make an empty store; not measured."""
        self._run(self.init, home, home)

    def save(self, home: Path, number: int, extra: Command = ()) -> Usage:
        """Store `data` durably, with more words behind the last command."""
        used = self._run([*self.add[:-1], (*self.add[-1], *extra)], home, home, number)
        if not self.syncs:
            used += self._run([("sync", "-f", "{home}")], home, home)
        return used

    def bring_back(self, home: Path, target: Path, number: int) -> tuple[Usage, Path]:
        """Write the files of a version; return where they lie. Nobody syncs these."""
        if self.in_place:
            shutil.rmtree(home / "data")
        used = self._run(self.restore, home, target, number)
        return used, (home if self.in_place else target) / "data"

    def _run(self, commands: Sequence[Command], home: Path, cwd: Path, number: int = 0) -> Usage:
        used = Usage()
        for command in commands:
            filled = [word.format(home=home, target=cwd, number=number) for word in command]
            used += run(filled, cwd, environment(home) | dict(self.env), home / "output")
        return used


def environment(home: Path) -> dict[str, str]:
    """Return an environment in which no tool meets the user's own settings or caches."""
    return {
        "PATH": f"{PEER_PYTHON.parent}:{os.environ['PATH']}",
        "HOME": str(home / "home"),
        "LANG": "C.UTF-8",
        "CAS_DIR": str(home / "store" / ".cas"),
        "PYTHONPATH": str(ROOT),
        "RESTIC_PASSWORD": "benchmark",
        "RESTIC_REPOSITORY": str(home / "store"),
        "RESTIC_CACHE_DIR": str(home / "home" / "restic"),
        "BORG_BASE_DIR": str(home / "home" / "borg"),
        "BORG_REPO": str(home / "store"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "home" / "dvc"),
        "GIT_CEILING_DIRECTORIES": str(home.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_NAME": "benchmark" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "benchmark@localhost" for who in ("AUTHOR", "COMMITTER")},
    }


COMMIT = (*GIT, "commit", "--quiet", "--allow-empty", "-m", "version {number}")
CHECKOUT = (*GIT, "-C", "{home}", "checkout", "--quiet", "HEAD", "--", "data")
TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "cas",
            syncs=True,
            init=[(*CAS, "init")],
            add=[(*CAS, "commit", "data", "-m", "version {number}")],
            restore=[(*CAS, "-C", "{home}", "checkout", "HEAD", "--to", "{target}")],
            about="hashes, cuts, compresses",
        ),
        Tool(
            "restic",
            syncs=True,
            init=[("restic", "init", "--quiet")],
            add=[("restic", "backup", "--quiet", "data")],
            restore=[("restic", "restore", "--quiet", "latest", "--target", "{target}")],
            needs="restic",
            about="cuts, compresses, always encrypts",
        ),
        Tool(
            "borg",
            syncs=True,
            init=[("borg", "init", "--encryption", "none")],
            add=[("borg", "create", "::{number}", "data")],
            restore=[("borg", "extract", "::{number}")],
            needs="borg",
            about="cuts, compresses (lz4), not encrypted",
        ),
        Tool(
            "git",
            syncs=False,
            init=[("git", "init", "--quiet")],
            add=[(*GIT, "add", "data"), COMMIT],
            restore=[CHECKOUT],
            store=".git",
            in_place=True,
            needs="git",
            about="compresses whole files; no automatic gc",
        ),
        Tool(
            "git-lfs",
            syncs=False,
            init=[
                ("git", "init", "--quiet"),
                ("git", "lfs", "install", "--local"),
                ("git", "lfs", "track", "data/**"),
            ],
            add=[(*GIT, "add", "data"), COMMIT],
            restore=[CHECKOUT],
            store=".git",
            in_place=True,
            needs="git-lfs",
            about="keeps whole files",
        ),
        Tool(
            "dvc",
            syncs=False,
            init=[("dvc", "init", "--no-scm", "--quiet")],
            add=[("dvc", "add", "--quiet", "data")],
            restore=[("dvc", "--cd", "{home}", "checkout", "--quiet")],
            store=".dvc",
            in_place=True,
            needs=str(PEER_PYTHON.with_name("dvc")),
            about="keeps whole files",
        ),
        Tool(
            "hf-xet",
            syncs=False,
            init=[("mkdir", "store")],
            add=[(*XET, "add", "{home}/store", "{home}/data")],
            restore=[(*XET, "restore", "{home}/store", "{target}")],
            needs=str(PEER_PYTHON),
            about="cuts, compresses; its local mode",
        ),
        Tool(
            "zipnn",
            syncs=False,
            init=[("mkdir", "store")],
            add=[(*ZIPNN, "add", "{home}/store", "{home}/data")],
            restore=[(*ZIPNN, "restore", "{home}/store", "{target}")],
            needs=str(BENCH / "zipnn-ready"),
            about="a codec, no store: compresses each file",
        ),
    )
}


def install(zipnn: bool) -> list[str]:
    """Install the peers that are missing, where that is possible; return what could not be had."""
    problems = []
    BENCH.mkdir(exist_ok=True)
    absent = [name for name in DEBIAN if not shutil.which(_program(name))]
    if absent and not (shutil.which("apt-get") and os.geteuid() == 0):
        problems.append(f"{', '.join(absent)}: not on PATH, and apt-get needs root")
    elif absent:
        problems += _tried(("apt-get", "install", "-y", "--no-install-recommends", *absent))
    if not PEER_PYTHON.exists():
        problems += _tried((sys.executable, "-m", "venv", str(BENCH / "venv")))
    pip = (str(PEER_PYTHON), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"))
    ready = BENCH / "venv" / "installed"
    if not ready.exists() or ready.read_text() != repr(PYPI):
        failed = [why for package in PYPI for why in _tried((*pip, package))]
        problems += failed  # one that is not to be had leaves the others
        if not failed:
            ready.write_text(repr(PYPI))
    if zipnn and not (BENCH / "zipnn-ready").exists():
        unbuilt = _tried((*pip, "torch", "setuptools", "wheel", "zipnn==0.5.4"))
        problems += unbuilt
        if not unbuilt:
            (BENCH / "zipnn-ready").touch()
    return problems


def versions() -> dict[str, str]:
    """Return what each tool that is there says its version is."""
    dvc = str(PEER_PYTHON.with_name("dvc"))
    freeze = (str(PEER_PYTHON), "-m", "pip", "list", "--format=freeze")
    asked: dict[str, Command] = {
        "cas": (*CAS, "--version"),
        "restic": ("restic", "version"),
        "borg": ("borg", "--version"),
        "git": ("git", "--version"),
        "git-lfs": ("git-lfs", "version"),
        "dvc": (dvc, "--version"),
    }
    told = {name: _said(command) for name, command in asked.items()}
    packages = dict(line.split("==", 1) for line in _said(freeze).split("\n") if "==" in line)
    told |= {
        name: packages[name] for name in ("hf-xet", "zipnn", "safetensors") if name in packages
    }
    return {name: version.split("\n")[0] for name, version in told.items() if version}


def _program(package: str) -> str:
    return {"borgbackup": "borg"}.get(package, package)


def _said(command: Command) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _tried(command: Command) -> list[str]:
    env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(command, BENCH, env, BENCH / "install.log")
    except FailedError as error:
        return [str(error)]
    return []
