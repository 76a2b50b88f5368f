"""A shared repository: two users of one group, with the strictest umask, and everything in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from stat import S_IMODE, S_ISDIR

import pytest

from cas.backend.base import TEMPORARY
from cas.repo.repo import Repo
from cas.repo.sharing import share
from tests.support.builders import Clock, commit_files, repository
from tests.support.runs import CAS, environment

pytestmark = [
    pytest.mark.slow,  # whole programs
    pytest.mark.skipif(
        os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can be two users"
    ),
]
GROUP, ADA, BOB, EVE = 61_000, 61_001, 61_002, 61_003

WORK = """
import os, cas
from cas.tracking.track import clock
with cas.track("a", name=NAME) as run:
    open(NAME, "w").write("x" * 70_000)
    run.log({"loss": 1})
    run.log_artifact(NAME)
    run.track_dataset([1.0], name="d")
    run.save_checkpoint(model={"w": os.urandom(100_000)}, step=1)
"""


def as_user(
    uid: int, folder: Path, argv: Sequence[object], *, code: int = 0, group: int = GROUP
) -> "subprocess.CompletedProcess[str]":
    """Run a program as a user with umask 077."""
    # The interpreter may lie where only its owner can look, so reading is not what is tried here.
    reads = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={group}", *reads]
    done = subprocess.run(
        [*user, "sh", "-c", 'umask 077; exec "$@"', "sh", *map(str, argv)],
        cwd=folder,
        env=environment(HOME=str(folder), PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, f"{argv}: {done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of a group, as an administrator makes it."""
    folder = tmp_path / "project"
    folder.mkdir()
    os.chown(folder, ADA, GROUP)
    folder.chmod(0o2775)
    for above in folder.parents:
        if above.owner() == "root" and len(above.parts) > 2:
            above.chmod(above.stat().st_mode | 0o005)
    return folder


def closed(path: Path) -> list[str]:
    """Return what a group cannot write to, or does not own."""
    found = []
    for file in (path, *path.rglob("*")):
        state = file.stat()
        wanted = 0o2070 if S_ISDIR(state.st_mode) else 0o060
        if S_IMODE(state.st_mode) & wanted != wanted or state.st_gid != GROUP:
            found.append(f"{file} {S_IMODE(state.st_mode):o} {state.st_gid}")
    return found


def python(name: str) -> list[str]:
    return [sys.executable, "-c", WORK.replace("NAME", repr(name))]


def test_two_users_of_a_group_do_everything(project: Path) -> None:
    done = as_user(ADA, project, [CAS, "init", "--shared"])
    assert "its group writes to it too: " in done.stdout
    place = project / ".cas"
    for number, user in enumerate((ADA, BOB)):
        as_user(user, project, python(f"run{number}"))
    as_user(BOB, project, [CAS, "commit", "-m", "x", "run1"])
    assert not closed(place)
    as_user(BOB, project, [CAS, "config", "monitor", "loss"])
    as_user(ADA, project, [CAS, "config", "mode", "min"])
    as_user(BOB, project, [CAS, "run", "/bin/echo", "said"])
    as_user(ADA, project, [CAS, "prune", "--keep-last", "1", "--yes"])
    as_user(BOB, project, [CAS, "gc"])
    as_user(ADA, project, [CAS, "repack"])
    as_user(BOB, project, [CAS, "fsck", "--full"])
    assert not closed(place)
    assert "permission" in as_user(EVE, project, [CAS, "tag", "t"], group=EVE, code=11).stderr


def test_the_run_of_one_user_is_recovered_by_another(project: Path) -> None:
    as_user(ADA, project, [CAS, "init", "--shared"])
    dying = WORK.replace("NAME", "'x'") + "    run.log({'loss': 2}); run._live.flush()\n"
    dying += "    os._exit(9)\n"
    as_user(ADA, project, [sys.executable, "-c", dying], code=9)
    done = as_user(BOB, project, [CAS, "tag", "t", "a/x"])
    assert "a/x ended without a finish: committed as crashed" in done.stderr
    # What was on its way when the process died has no name yet that anybody looks for.
    half = str(project / ".cas" / TEMPORARY)
    assert not [told for told in closed(project / ".cas") if not told.startswith(f"{half}/")]


def test_a_repository_that_is_there_is_opened_to_its_group(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        repo = repository(tmp_path)
        commit_files(repo, {"a": b"a"}, payload={"b": b"b" * 5000})
    finally:
        os.umask(old)
    os.chown(repo.path, -1, GROUP)
    assert closed(repo.path)
    done = share(repo.path)
    assert not closed(repo.path)
    assert (done.group, done.others) == (GROUP, ())
    commit_files(Repo.open(repo.path, who="ada", clock=Clock()), {"a": b"b"})
    assert not closed(repo.path)


def test_a_folder_above_that_nobody_else_can_pass_is_named(tmp_path: Path) -> None:
    above = tmp_path / "mine"
    above.mkdir(mode=0o700)
    assert share(above / ".cas").closed == above
