"""What surrounds a run: `environment` is compared between runs, `host` never is.

Nothing here fails a run: what cannot be read is left out. The secret filter is loaded when
something is captured: `here` alone is asked whenever a journal is read.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import Distribution

T = TypeVar("T")

VARIABLES: Final = frozenset(
    {
        "PYTHONHASHSEED",
        "CUBLAS_WORKSPACE_CONFIG",
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TOKENIZERS_PARALLELISM",
        "XLA_FLAGS",
    }
)
VARIABLE_PREFIXES: Final = ("NCCL_", "TORCH_", "JAX_", "TF_")
MAX_VALUE: Final = 4096
_NVIDIA_SMI_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class HostInfo:
    """Which kernel a process runs on: enough to say whether another process can still live."""

    host: str
    boot: str
    pidns: str


def here() -> HostInfo:
    """Return where this process runs; what the system does not tell is empty."""
    return HostInfo(
        host=_tried(_host_name) or "",
        boot=_tried(_boot) or "",
        pidns=_tried(lambda: os.readlink("/proc/self/ns/pid")) or "",
    )


def environment(determinism: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Return Python, packages, platform and settings: equal where equal runs can be expected.

    `determinism` are the flags of frameworks that the caller knows how to ask.
    """
    found = {
        "python": _tried(_python),
        "packages": _tried(packages),
        "platform": _tried(_platform),
        "variables": _tried(lambda: variables(os.environ)),
        "determinism": dict(determinism or {}),
    }
    return {key: value for key, value in found.items() if value is not None}


def host() -> dict[str, Any]:
    """Return what is true of this host and process alone."""
    place = here()
    found: dict[str, Any] = {
        "host": place.host or None,
        "boot": place.boot or None,
        "pidns": place.pidns or None,
        "user": _tried(user),
        "pid": os.getpid(),
        "cpu": _tried(_cpu),
        "cpu_count": os.cpu_count(),
        "cpu_usable": _tried(lambda: len(os.sched_getaffinity(0))),
        "memory_bytes": _tried(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "gpus": _tried(_gpus),
        "gpu_driver": _tried(_gpu_driver),
        "cwd": _tried(os.getcwd),
        "python": sys.executable,
        "os": _tried(_release),
        "kernel": _tried(lambda: os.uname().release),
    }
    return {key: _valid(value) for key, value in found.items() if value is not None}


def packages() -> dict[str, str]:
    """Return the version of every installed distribution, by normalised name, in order.

    Where two stand on the path, the first counts, as for `import`.
    """
    from importlib.metadata import distributions

    found: dict[str, str] = {}
    for distribution in distributions():
        # Only the headers: parsing the whole, long descriptions included, costs ten times as much.
        headers = (_tried(partial(_metadata, distribution)) or "").partition("\n\n")[0]
        name, version = _header(headers, "Name"), _header(headers, "Version")
        if name and version:
            found.setdefault(normalised(name), version)
    return dict(sorted(found.items()))


def normalised(name: str) -> str:
    """Return a distribution's name in the one form in which names are compared."""
    parts = name.lower().replace("_", "-").replace(".", "-").split("-")
    return "-".join(part for part in parts if part)


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that change what a run computes; paths are a host's, and left out."""
    from cas.tracking.secrets import scrub_params, valid_text

    allowed = {
        name: valid_text(value[:MAX_VALUE])
        for name, value in sorted(environ.items())
        if (name in VARIABLES or name.startswith(VARIABLE_PREFIXES))
        and not value.startswith(("/", "~"))
    }
    return {name: str(value) for name, value in scrub_params(allowed).items()}


def user() -> str:
    """Return the name of this process's user, or `uid N` for one without a name."""
    uid = os.getuid()
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"uid {uid}"


def _tried(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Exception:  # whatever a strange system does, describing it ends no run
        return None


def _metadata(distribution: "Distribution") -> str | None:
    return distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")


def _python() -> dict[str, str]:
    import platform

    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
    }


def _platform() -> dict[str, str]:
    names = os.uname()
    found = {"system": names.sysname, "machine": names.machine, "libc": _tried(_libc)}
    return {key: value for key, value in found.items() if value}


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        import platform

        return " ".join(platform.libc_ver()).strip()


def _header(headers: str, name: str) -> str:
    """Return the value of one header of a distribution's metadata, empty when it has none."""
    for line in headers.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.lower() == name.lower():
            return value.strip()
    return ""


def _host_name() -> str:
    return os.uname().nodename


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _cpu() -> str | None:
    with Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Model", "cpu model"}:
                return value.strip()
    return None


def _release() -> str | None:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return None


def _gpus() -> list[str] | None:
    """Return the model of each GPU, from the driver's files or else from its program."""
    folder = Path("/proc/driver/nvidia/gpus")
    if folder.is_dir():
        texts = [(gpu / "information").read_text() for gpu in sorted(folder.iterdir())]
        return [_header(text, "Model") for text in texts]
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
    return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()


def _valid(value: Any) -> Any:
    from cas.tracking.secrets import valid_text

    if isinstance(value, str):
        return valid_text(value)
    return [valid_text(item) for item in value] if isinstance(value, list) else value
