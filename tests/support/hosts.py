"""Hosts that share a folder, on one machine: namespaces of their own, and locks that do not reach.

A host has process ids, a name, a boot id and mounts of its own. With `bindfs` it mounts the shared
folder by itself, as from a file server: then no lock that it takes is seen by another host. What
one host has closed another sees when it opens it, as NFS has it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.runs import environment

ROOT = Path(__file__).resolve().parents[2]
SPACES = ("unshare", "--pid", "--uts", "--mount", "--fork", "--kill-child", "--mount-proc")
SETUP = """
hostname "$1" && mount --bind "$2" /proc/sys/kernel/random/boot_id || exit 99
fresh=attr_timeout=0,entry_timeout=0,negative_timeout=0
if [ -n "$4" ]; then bindfs -o $fresh "$3" "$4" || exit 99; fi
shift 4
exec "$@"
"""


@cache
def why_not() -> str:
    """Say why there can be no such hosts here; empty when there can."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return "hosts need Linux and unshare"
    try:
        subprocess.run([*SPACES, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no namespaces here: {error}"
    return ""


@cache
def file_servers() -> bool:
    """Say whether a host can mount a folder by itself."""
    return os.path.exists("/dev/fuse") and shutil.which("bindfs") is not None


class Host:
    """A host with a share: `shared` as it sees it is `share`."""

    def __init__(self, folder: Path, name: str, shared: Path, *, served: bool) -> None:
        self.name = name
        self._boot = folder / f"{name}.boot"
        self._boot.write_text(f"{uuid.uuid4()}\n")
        self._shared = shared
        self._served = served
        self.share = shared
        if served:
            self.share = folder / f"{name}.share"
            self.share.mkdir()

    def start(self, role: str, *args: object) -> "Process":
        """Start something on this host; see `ROLES`."""
        mount = str(self.share) if self._served else ""
        command = [
            *SPACES,
            *("sh", "-c", SETUP, "host", self.name, str(self._boot), str(self._shared), mount),
            *(sys.executable, "-m", "tests.support.hosts", role, str(self.share)),
            *map(str, args),
        ]
        return Process(command)


class Process:
    """A process on a host, and what it says: one JSON value in each line."""

    def __init__(self, command: list[str]) -> None:
        self.said: list[list[Any]] = []
        self.errors = ""
        self._heard = 0
        self._more = threading.Condition()
        self._child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # What it says must not wait until somebody listens.
        self._ears = [threading.Thread(target=ear) for ear in (self._listen, self._mind)]
        for ear in self._ears:
            ear.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        self.kill()

    def hear(self, what: str, wait: float = 60) -> list[Any]:
        """Return the next line that begins so; raise AssertionError when there is none."""
        with self._more:
            while True:
                for line in self.said[self._heard :]:
                    self._heard += 1
                    if line[0] == what:
                        return line
                heard = self._ears[0].is_alive() and self._more.wait(wait)
                assert heard or self._heard < len(self.said), f"no {what!r}: {self.errors}"

    def stop(self) -> list[list[Any]]:
        """Let it come to its end by itself; return all that it said."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._wait()
        assert self._child.returncode == 0, self.errors
        return self.said

    def kill(self) -> list[list[Any]]:
        """End the host at once, as a power failure would; return what it had said."""
        self._child.kill()
        self._wait()
        return self.said

    def _wait(self) -> None:
        self._child.wait(120)
        for ear in self._ears:
            ear.join()
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            with self._more:
                if line.endswith("]\n"):
                    self.said.append(json.loads(line))
                self._more.notify()

    def _mind(self) -> None:
        assert self._child.stderr is not None
        self.errors = self._child.stderr.read()

    def freeze(self) -> None:
        """Stop it where it stands."""
        os.kill(self._inner(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._inner(), signal.SIGCONT)

    def _inner(self) -> int:
        own = self._child.pid
        return int(Path(f"/proc/{own}/task/{own}/children").read_text().split()[0])


def worker(role: str, share: Path, *args: object) -> Process:
    """Start a process on this host, where nobody is taken for dead."""
    words = [role, str(share), "600", "60", *map(str, args)]
    return Process([sys.executable, "-m", "tests.support.hosts", *words])


def train(share: Path, name: str) -> None:
    """Track a run that logs without end and saves now and then."""
    import cas

    os.chdir(share)
    with cas.track("a", name=name, repo=share) as run:
        step = 0
        for _ in _until_told():
            run.log({"loss": step})
            if step % 25 == 24:
                id = run.save_checkpoint(model={"w": state_at(name, step)}, step=step).commit
                say("saved", str(id), step)
            elif step % 5 == 4:
                say("logged", time.monotonic(), step)
            step += 1
            time.sleep(0.005)
    say("ended", run.name, step)


def keep(share: Path, seconds: str) -> None:
    """Do what a person does: commit, look, collect; and tell of runs that are recovered."""
    from cas.repo import place
    from cas.repo.collect import gc
    from cas.repo.repo import Repo
    from cas.tracking.ends.recovery import recover_lost
    from tests.support.builders import commit_files, read_tree

    own = f"tags/{os.urandom(4).hex()}"
    number, wrong = 0, 48 * 3600 * 1_000_000

    def clock(wrong: int) -> int:
        return time.time_ns() // 1000 + wrong

    # Its clock is wrong by two days, now ahead and now behind.
    for _ in _until_told(float(seconds)):
        number += 1
        wrong = -wrong
        repo = Repo.open(place.find(share), who="ada", clock=partial(clock, wrong))
        for run in recover_lost(repo):
            say("recovered", run)
        id = commit_files(repo, {"n": b"%d" % number}, ref=own)
        assert read_tree(repo, repo.commit(id).tree) == {"n": b"%d" % number}
        if number % 3 == 0:
            gc.execute(repo, gc.plan(repo))
        repo.backend.close()
        time.sleep(0.05)
    say("kept", number)


def say(*words: object) -> None:
    """Tell it in one call, so that no line is torn when the process ends."""
    os.write(1, (json.dumps(words) + "\n").encode())


def state_at(name: str, step: int) -> bytes:
    """Return what a run saves at a step."""
    return f"{name} {step} ".encode() * 500


def _until_told(seconds: float = float("inf")) -> Iterator[None]:
    """Yield until standard input is closed, or the time is over."""
    import select

    end = time.monotonic() + seconds
    while time.monotonic() < end and not select.select([sys.stdin], [], [], 0)[0]:
        yield


ROLES: dict[str, Callable[..., None]] = {"train": train, "keep": keep}


def hurry(silent: float, alive: float) -> None:
    """Let what takes minutes take seconds."""
    from cas.tracking.ends import liveness, recovery
    from cas.tracking.journals import journalwriter

    for module in (liveness, recovery):
        vars(module)["SILENT_SECONDS"] = silent
    vars(journalwriter)["ALIVE_SECONDS"] = alive


def main(role: str, share: str, silent: str, alive: str, *args: str) -> None:
    hurry(float(silent), float(alive))
    say("ready")
    ROLES[role](Path(share), *args)


if __name__ == "__main__":
    main(*sys.argv[1:])
