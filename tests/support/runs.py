"""Runs for tests: scripts in processes of their own, and what a run left, as plain values."""

import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cas.ids import CommitId, ManifestId, ObjectId
from cas.lineage.verdict import Verdict
from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.objects.manifest import Column, Series
from cas.repo.place import find
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.repo.revision import resolve
from cas.tracking import reproduce
from tests.support.builders import Clock

CAS = Path(sys.executable).parent / "cas"


def environment(**more: str) -> dict[str, str]:
    """The environment of a user who has set nothing that matters here."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CAS_", "GIT_"))
    }
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "NO_COLOR": "1"}
    return kept | alone | more


def run(
    folder: Path, *argv: str | Path, code: int | None = 0, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program in a folder to its end, which must be this exit code; None takes any."""
    done = subprocess.run(
        list(map(str, argv)),
        cwd=folder,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert code is None or done.returncode == code, f"{argv}: {done.stdout}\n{done.stderr}"
    return done


def script(folder: Path, text: str, name: str = "train.py") -> Path:
    """Write a script that tracks itself."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"import os, sys, time\nimport cas\n{text}")
    return path


def python(
    folder: Path, *args: str | Path, code: int | None = 0, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder."""
    return run(folder, sys.executable, *args, code=code, env=env)


def cas(
    folder: Path, *args: str | Path, code: int | None = 0, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command `cas` in a folder."""
    return run(folder, CAS, *args, code=code, env=env)


def started(folder: Path, *argv: str | Path, **env: str) -> "subprocess.Popen[str]":
    """Start a program in a folder; its output is read by whoever waits for it."""
    return subprocess.Popen(
        list(map(str, argv)),
        cwd=folder,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(child: "subprocess.Popen[str]", number: int = signal.SIGKILL) -> None:
    """Send a signal and wait for the end."""
    child.send_signal(number)
    child.communicate(timeout=60)


def eventually(holds: Callable[[], Any], what: str = "it") -> Any:
    """Wait for something that another process does, and return it."""
    for _ in range(3000):
        found = holds()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen")


def opened(folder: Path) -> Repo:
    """Open the repository of a folder."""
    return Repo.open(find(folder), who="ada@host", clock=Clock())


def only_run(repo: Repo, under: str = "runs/") -> tuple[CommitId, Commit]:
    """Return the finishing commit of the only run there is."""
    tips = [id for ref, id in repo.refresh().refs.items() if ref.startswith(under)]
    assert len(tips) == 1, sorted(repo.root.refs)
    return tips[0], repo.commit(tips[0])


def checkpoints(repo: Repo, tip: CommitId) -> list[tuple[CommitId, Commit]]:
    """Return the checkpoints of a run, oldest first."""
    found = [item for item in segment(repo.commit, tip) if item[1].kind == "checkpoint"]
    return found[::-1]


def text(repo: Repo, commit: Commit, path: str) -> str:
    """Return a file of a commit's record or payload as text."""
    for tree in (commit.tree, commit.payload):
        entry = repo.lookup(tree, path.encode()) if tree is not None else None
        if entry is not None:
            return repo.store.read(Kind.BLOB, entry.id).decode()
    raise AssertionError(f"{path} is not there")


def names(repo: Repo, tree: ObjectId | None) -> list[str]:
    """Return the names in a directory, of none nothing."""
    return [entry.name.decode() for entry in repo.entries(tree)] if tree is not None else []


def points(repo: Repo, commit: Commit, what: str = "metrics") -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values of all metrics in a record."""
    entry = repo.lookup(commit.tree, what.encode())
    if entry is None:
        return {}
    series = repo.manifest(ManifestId(entry.id))
    assert isinstance(series, Series)

    def column(code: str, of: Column) -> list[Any]:
        data = of.data if of.data is not None else repo.store.read(Kind.BLOB, of.id)
        return array(code, data).tolist()

    return {
        row.name: list(zip(column("q", row.steps), column("d", row.values), strict=True))
        for row in series.rows
    }


def everything(repo: Repo) -> bytes:
    """Return the bytes of every object in every listed pack, decoded."""
    rows = [place.row for place in repo.store.index.starting(b"")]
    return b"\0".join(repo.store.read(Kind(row.kind), row.id) for row in rows)


def listing(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return all files below a folder with size, time of change and content."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_size,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


# Its seed and a number in its data can be changed from outside; its results depend on both.
TRAIN = """
import random
seed = int(open(os.environ["SEED_FILE"]).read()) if "SEED_FILE" in os.environ else 1
with cas.track("a", name="x", seed=seed) as run:
    run.track_dataset("data/x.csv")
    run.track_dataset("../shared.csv")
    rows = [float(row) for row in open("data/x.csv")] + [float(open("../shared.csv").read())]
    for step in range(4):
        run.log({"loss": random.random() + rows[step] / 10, "steady": 1})
        run.save_checkpoint(model={"w": [random.random(), rows]}, step=step)
    open("out.txt", "w").write(str(random.random()))
    run.log_artifact("out.txt")
"""


def project(folder: Path) -> Path:
    """Write `TRAIN` and its data."""
    (folder / "data").mkdir()
    (folder / "data" / "x.csv").write_text("1\n2\n3\n")
    (folder.parent / "shared.csv").write_text("4\n")
    script(folder, TRAIN)
    return folder


def reproduced(folder: Path, rev: str = "", **options: Any) -> tuple[Verdict, Commit]:
    """Reproduce the only run, or a revision; return the verdict and its commit."""
    repo = opened(folder)
    id = resolve(repo, rev) if rev else only_run(repo)[0]
    verdict, commit = reproduce.execute(repo, reproduce.plan(repo, id), **options)
    return verdict, repo.commit(commit)
