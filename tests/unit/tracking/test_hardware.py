"""What a host has is told as far as it tells; nothing that hangs or fails is waited for."""

import json
import os
from pathlib import Path

import pytest

from cas.tracking.captured import hardware as module
from cas.tracking.captured.hardware import hardware, job_variables
from cas.tracking.captured.installed import tried


def test_it_is_plain_data_with_sizes_in_bytes(tmp_path: Path) -> None:
    found = hardware(tmp_path)
    assert found["cpu_count"] == os.cpu_count()
    assert found["disk_bytes"] >= found["disk_free_bytes"] > 0
    assert found["memory_bytes"] > 2**20
    assert json.loads(json.dumps(found)) == found


def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    for name in ("read_text", "is_dir", "open", "cwd"):
        monkeypatch.setattr(Path, name, refuse)
    assert not {"cpu", "gpus", "disk_bytes", "memory_limit_bytes"} & hardware().keys()


@pytest.mark.parametrize(
    ("limit", "cpus", "expected"),
    [("1073741824", "150000 100000", (2**30, 1.5)), ("max", "max 100000", (None, None))],
)
def test_the_bounds_of_a_control_group_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    cpus: str,
    expected: tuple[int | None, float | None],
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "cpu.max").write_text(cpus + "\n")
    monkeypatch.setattr(module, "_groups", lambda: [tmp_path])
    found = hardware()
    assert (found.get("memory_limit_bytes"), found.get("cpu_limit")) == expected


def test_a_gpu_program_that_hangs_or_fails_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'Card A\\nCard B\\n'\n")
    program.chmod(0o755)
    assert module._asked(str(program)) == ["Card A", "Card B"]
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(module, "_NVIDIA_SMI_SECONDS", 0.05)
    assert tried(lambda: module._asked(str(program))) is None


def test_gpus_are_told_by_the_drivers_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 0):
        gpu = tmp_path / "gpus" / f"0000:0{number}"
        gpu.mkdir(parents=True)
        (gpu / "information").write_text(f"Model: \t\t Card {number}\nIRQ: 1\n")
    (tmp_path / "version").write_text("NVRM version: 550\nGCC\n")
    monkeypatch.setattr(module, "_NVIDIA", tmp_path)
    assert hardware()["gpus"] == ["Card 0", "Card 1"]
    assert hardware()["gpu_driver"] == "NVRM version: 550"


def test_a_jobs_variables_are_those_of_clusters_and_launchers() -> None:
    environ = {"SLURM_JOB_ID": "1", "RANK": "0", "HOME": "/root", "PBS_JOBID": "2"}
    assert job_variables(environ) == {"PBS_JOBID": "2", "RANK": "0", "SLURM_JOB_ID": "1"}
