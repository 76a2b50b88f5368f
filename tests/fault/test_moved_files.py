"""A move that is interrupted: each file is on disk, or whole in the published commit, or both."""

import errno
from pathlib import Path

import pytest

from cas.errors import CasError
from cas.repo.repo import Repo
from cas.repo.trees.move import Moved, execute
from tests.support.builders import reopened, repository
from tests.support.faulty import Crash, Fault, FaultyOps
from tests.unit.repo.test_move import CONTENTS, TOLD, committed, filled, on_disk, planned


def moved(repo: Repo, base: Path, ops: FaultyOps) -> Moved | None:
    """Move everything with these file operations; None when that fails."""
    try:
        again = reopened(repo, ops)
        return execute(again, planned(again, base), TOLD)
    except (CasError, OSError, Crash):
        return None


def operations_of_a_move(base: Path) -> int:
    ops = FaultyOps()
    assert moved(repository(base), base, ops) is not None
    return len(ops.calls)


@pytest.mark.parametrize("raises", [Crash, errno.EIO, errno.ENOSPC])
def test_at_every_fault_each_file_is_on_disk_or_in_the_commit(
    tmp_path: Path, raises: "int | type[Crash]"
) -> None:
    count = operations_of_a_move(filled(tmp_path / "all"))
    assert count > 20
    failed = 0
    for at in range(1, count + 1):
        base = filled(tmp_path / str(at))
        repo = repository(base)
        ops = FaultyOps(Fault(at, raises, onwards=True))
        failed += moved(repo, base, ops) is None
        there, stored = on_disk(base), committed(repo)
        assert there | stored == CONTENTS, f"{ops.happened[:1]} was the {at}th of {count}"
        assert all(CONTENTS[name] == data for name, data in there.items())
    assert failed > 10
