"""What this host has: processor, memory, disk, GPUs, and the bounds of a container. Never compared.

Read from `/proc`, `/sys` and the driver's files; what a system does not tell is missing.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cas.tracking.captured.installed import tried

_NVIDIA: Final = Path("/proc/driver/nvidia")
_NVIDIA_SMI_SECONDS: Final = 2
MAX_VALUE: Final = 4096  # characters of a variable
_MARKS: Final = ("/.dockerenv", "/run/.containerenv")
# What a cluster says of a job: it differs between equal runs.
JOB_PREFIXES: Final = ("SLURM_", "PBS_", "LSB_", "SGE_")
JOB_VARIABLES: Final = frozenset(
    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"}
)


def hardware(place: Path | None = None) -> dict[str, Any]:
    """Return what the host of this process has, free of what it does not tell.

    Sizes are in bytes; `disk_*` are of the file system of `place`, the current folder by default.
    """
    disk = tried(lambda: os.statvfs(place or Path.cwd()))
    found = {
        "cpu": tried(_cpu),
        "cpu_count": os.cpu_count(),
        "cpu_usable": tried(lambda: len(os.sched_getaffinity(0))),
        "cpu_limit": tried(_cpu_limit),
        "memory_bytes": tried(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "memory_limit_bytes": tried(_memory_limit),
        "disk_bytes": disk and disk.f_frsize * disk.f_blocks,
        "disk_free_bytes": disk and disk.f_frsize * disk.f_bavail,
        "container": tried(_is_container) or None,
        "gpus": tried(_gpus),
        "gpu_driver": tried(_gpu_driver),
    }
    return {key: value for key, value in found.items() if value is not None}


def job_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a cluster's and a launcher's variables say of this process, without secrets."""
    from cas.tracking.privacy.secrets import scrub_params, valid_text

    told = {
        name: valid_text(value)
        for name, value in sorted(environ.items())
        if name in JOB_VARIABLES or name.startswith(JOB_PREFIXES)
    }
    return {name: str(value)[:MAX_VALUE] for name, value in scrub_params(told).items()}


def _cpu() -> str | None:
    with Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Model", "cpu model"}:
                return value.strip()
    return None


def _groups() -> list[Path]:
    """Return the folders of this process's control group, the second version's and the first's."""
    own = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2].lstrip("/")
    top = Path("/sys/fs/cgroup")
    return [top / own, top, top / "memory", top / "cpu"]


def _memory_limit() -> int | None:
    for folder in _groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = tried(lambda path=folder / name: path.read_text().strip())  # type: ignore[misc]
            if text and text.isdigit() and int(text) < 2**60:  # a larger one is none
                return int(text)
    return None


def _cpu_limit() -> float | None:
    for folder in _groups():
        text = tried(lambda path=folder / "cpu.max": path.read_text())  # type: ignore[misc]
        quota, _, period = (text or "").strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            return round(int(quota) / int(period), 3)
    return None


def _is_container() -> bool:
    return any(map(os.path.exists, _MARKS)) or "KUBERNETES_SERVICE_HOST" in os.environ


def _gpus() -> list[str] | None:
    """Return the model of each GPU, from the driver's files or else from its program."""
    folder = _NVIDIA / "gpus"
    if folder.is_dir():
        texts = [(gpu / "information").read_text() for gpu in sorted(folder.iterdir())]
        return [_field(text, "Model") for text in texts]
    import shutil

    program = shutil.which("nvidia-smi")
    return _asked(program) if program else None


def _asked(program: str) -> list[str]:
    import subprocess

    answer = subprocess.run(
        [program, "--query-gpu=name", "--format=csv,noheader"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_NVIDIA_SMI_SECONDS,
        check=True,
    )
    return answer.stdout.decode("utf-8", "replace").splitlines()


def _gpu_driver() -> str:
    return (_NVIDIA / "version").read_text().splitlines()[0].strip()


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
