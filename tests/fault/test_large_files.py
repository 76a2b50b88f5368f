"""A file that is far larger than what it takes in memory goes in and comes out."""

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1024 * 1024
SIZE = 384 * MIB
LIMIT = 72 * MIB

SCRIPT = """
import sys
from pathlib import Path
from cas.repo.trees import checkout
from cas.repo.trees.ingest import add
from cas.repo.repo import Repo
from cas.repo.transaction import transact

def peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

base = Path(sys.argv[1])
repo = Repo.create(base / "repo", who="", clock=lambda: 0)

def there_and_back(name):
    entry = transact(repo, "test", lambda transaction: add(transaction.writer, base / name))
    checkout.execute(repo, checkout.plan(repo, entry, base / "out"))
    return entry

there_and_back("small")  # all modules are loaded now
before = peak()
entry = there_and_back("large")
print(entry.id, entry.size, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read in /proc")
def test_a_large_file_goes_in_and_out_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 600_000)
    with (tmp_path / "large").open("wb") as file:
        for number in range(0, SIZE, 16 * MIB):  # mostly holes, all of them different
            file.seek(number)
            file.write(b"%d" % number * 1000)
        file.truncate(SIZE)
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout.split()
    assert int(told[1]) == SIZE
    assert int(told[2]) < LIMIT
    same = subprocess.run(["cmp", tmp_path / "large", tmp_path / "out" / "large"], check=False)
    assert same.returncode == 0
