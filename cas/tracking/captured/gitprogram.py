"""The program git, asked in one place: it writes and starts nothing, and is not waited for long.

No optional lock is taken, so that the index is not refreshed; no pager, prompt, monitor, hook or
lazy fetch is started.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from cas.tracking.privacy.secrets import scrub_text, valid_text

SECONDS: Final = 10.0  # that one answer may take
FIRST_SECONDS: Final = 5.0  # the same of the first one, which is little work
IN_ALL_SECONDS: Final = 15.0
_SETTINGS: Final = (
    *("-c", "core.fsmonitor=false", "-c", "core.quotePath=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
)
_ENVIRONMENT: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}
# They name a repository: that of a hook that we may run in, and not that of the code.
_ELSEWHERE: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
_NO_WORK_TREE: Final = (b"not a git repository", b"must be run in a work tree")


class Git:
    """The program; what it does not answer is noted in `problems`."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._until = time.monotonic() + IN_ALL_SECONDS
        self._asked = False

    def ask(self, place: Path, *arguments: str, may_fail: bool = False) -> bytes:
        """Return what git prints when it is asked in a folder, nothing when it fails.

        One that has let us wait for too long in all is asked no more.
        """
        import subprocess

        left = min(SECONDS if self._asked else FIRST_SECONDS, self._until - time.monotonic())
        if left <= 0:
            return b""
        try:
            with subprocess.Popen(
                ["git", *_SETTINGS, *arguments],
                cwd=place,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            ) as child:
                try:
                    answer, complaint = child.communicate(timeout=left)
                except BaseException:
                    with suppress(OSError):  # what it has started holds its pipes open
                        os.killpg(child.pid, signal.SIGKILL)
                    raise
        except subprocess.TimeoutExpired:
            self.problems.append(f"git {arguments[0]} took more than {left:.2g} seconds")
            # One that does not even say where it is will not say more.
            self._until = self._until if self._asked else 0.0
            return b""
        except (OSError, ValueError) as error:
            if any((folder / ".git").exists() for folder in (place, *place.parents)):
                self.problems.append(f"git cannot be started: {error}")
            return b""
        self._asked = True
        if child.returncode == 0:
            return answer
        if not may_fail and not any(text in complaint for text in _NO_WORK_TREE):
            reason = text_of(complaint.strip()).splitlines()
            told = scrub_text(reason[0])[0] if reason else "?"
            self.problems.append(f"git {arguments[0]} failed: {told}")
        return b""


def text_of(raw: bytes) -> str:
    """Return what git printed as valid text."""
    return valid_text(os.fsdecode(raw))


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return kept | _ENVIRONMENT
