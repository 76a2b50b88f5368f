"""`cas whence` names the commits of a file; exit code 3 when it knows none."""

from pathlib import Path

import numpy as np

from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import commit_files
from tests.support.lineage import checkpoint, make, prune
from tests.support.tensorfiles import safetensors

WEIGHTS = np.arange(100, dtype=np.float32)
FILE = safetensors({"w": ("F32", [100], WEIGHTS.tobytes())})


def test_a_run_is_named_once_for_all_its_commits(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "train.py").write_bytes(b"code")
    first = checkpoint(repo, {"w": 1}, record={"code/train.py": b"code"}, step=1)
    end = make(repo, record={"code/train.py": b"code"}, before=first, time=2)
    result = cas("whence", "train.py")
    assert result.code == 0
    assert result.lines[1] == "these very bytes are in"
    assert result.lines[2].startswith(f"    exp/one  {end.short}  code/train.py  ")
    assert result.lines[2].endswith("and 1 older commit of this run")
    assert len(result.lines) == 3


def test_weights_are_named_by_checkpoint_and_part(cas: Cas, repo: Repo, place: Path) -> None:
    id = checkpoint(repo, {"model": {"w": WEIGHTS, "b": WEIGHTS + 1}}, step=3)
    (place / "w.safetensors").write_bytes(FILE)
    result = cas("whence", "w.safetensors")
    assert result.lines[0].startswith("w.safetensors: 480 B, safetensors with 1 tensor, id ")
    assert result.lines[1] == "its one tensor is among the 2 of part model of"
    assert result.lines[2].startswith(f"    exp/one checkpoint 3  {id.short}  state")


def test_all_and_some_tensors_are_told_apart(cas: Cas, repo: Repo, place: Path) -> None:
    checkpoint(repo, {"model": {"w": WEIGHTS, "b": WEIGHTS + 1}})
    for value, expected in (
        (1, "all 2 tensors are those of part model of"),
        (2, "1 of 2 tensors are among the 2 of part model of"),
    ):
        other = (WEIGHTS + value).tobytes()
        rows = {"w": ("F32", [100], WEIGHTS.tobytes()), "b": ("F32", [100], other)}
        (place / "f").write_bytes(safetensors(rows))
        assert cas("whence", "f").lines[1] == expected


def test_a_committed_file_is_the_nearest(cas: Cas, repo: Repo, place: Path) -> None:
    rows = {n: ("F32", [100], (WEIGHTS + n).tobytes()) for n in range(3)}
    held = safetensors({str(n): row for n, row in rows.items()})
    id = commit_files(repo, {"old.safetensors": held})
    rows[2] = ("F32", [100], (WEIGHTS - 1).tobytes())
    (place / "w").write_bytes(safetensors({f"renamed.{n}": row for n, row in rows.items()}))
    lines = cas("whence", "w").lines
    assert lines[1] == "2 of 3 tensors are among the 3 of"
    assert id.short in lines[2]
    assert "old.safetensors" in lines[2]


def test_an_unknown_file_is_exit_code_3(cas: Cas, repo: Repo, place: Path) -> None:
    id = checkpoint(repo, {"model": {"w": WEIGHTS}})
    prune(repo, id)
    (place / "w.safetensors").write_bytes(FILE)
    result = cas("whence", "w.safetensors")
    assert result.code == 3
    assert result.err == (
        "cas: nothing is known of w.safetensors here (1 pruned payload could not be looked at)\n"
    )


def test_json_says_all(cas: Cas, repo: Repo, place: Path) -> None:
    id = checkpoint(repo, {"model": {"w": WEIGHTS}})
    (place / "w").write_bytes(FILE)
    data = cas("whence", "w", "--json").json
    assert (data["known"], data["format"], data["tensors"]) == (True, "safetensors", 1)
    assert data["matches"][0]["holders"][0]["commit"] == str(id)
    (place / "other").write_bytes(b"z")
    unknown = cas("whence", "other", "--json")
    assert (unknown.code, unknown.json["known"]) == (3, False)


def test_what_is_no_file_is_one_line(cas: Cas, repo: Repo, place: Path) -> None:
    assert cas("whence", "missing").code == 3
    assert cas("whence", ".").code == 2
