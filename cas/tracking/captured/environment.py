"""What surrounds a run: `environment` is compared between runs, `host` never is.

Nothing here fails a run: what cannot be read is left out. The secret filter is loaded when
something is captured: `here` alone is asked whenever a journal is read.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from cas.tracking.captured.hardware import MAX_VALUE, job_variables
from cas.tracking.captured.installed import lock_files, tried
from cas.tracking.captured.parts import EVERYTHING, Capture

VARIABLES: Final = frozenset(
    {
        "PYTHONHASHSEED",
        "CUBLAS_WORKSPACE_CONFIG",
        "CUDA_VISIBLE_DEVICES",
        "TOKENIZERS_PARALLELISM",
        "XLA_FLAGS",
        "LANG",
        "LANGUAGE",
        "TZ",
    }
)
VARIABLE_PREFIXES: Final = ("NCCL_", "TORCH_", "PYTORCH_", "JAX_", "TF_", "LC_")
VARIABLE_ENDINGS: Final = ("_NUM_THREADS",)


@dataclass(frozen=True, slots=True)
class HostInfo:
    """Which kernel a process runs on: enough to say whether another process can still live."""

    host: str
    boot: str
    pidns: str


def here() -> HostInfo:
    """Return where this process runs; what the system does not tell is empty."""
    return HostInfo(
        host=tried(_host_name) or "",
        boot=tried(_boot) or "",
        pidns=tried(lambda: os.readlink("/proc/self/ns/pid")) or "",
    )


def environment(
    frameworks: Sequence[Any] = (), parts: Capture = EVERYTHING, top: Path | None = None
) -> dict[str, Any]:
    """Return Python, platform and settings: equal where equal runs can be expected.

    What is installed is read apart, as it takes long; lock files are those at the top of a project.
    `frameworks` are the modules that know those in use. What is switched off is named under
    `not_captured`.
    """
    found: dict[str, Any] = {}
    if parts.environment:
        found |= {
            "python": tried(_python),
            "platform": tried(_platform),
            "blas": tried(_blas),
            "frameworks": _told("versions", frameworks),
            "determinism": _told("determinism", frameworks),
        }
    if parts.packages and top is not None:
        found["lock_files"] = tried(lambda: lock_files(top)) or None
    if parts.variables:
        found["variables"] = tried(lambda: variables(os.environ))
    kept = {key: value for key, value in found.items() if value is not None}
    return parts.mark(kept, "environment", "packages", "variables")


def host(parts: Capture = EVERYTHING) -> dict[str, Any]:
    """Return what is true of this host and process alone; what it has is read apart."""
    place = here()
    found: dict[str, Any] = {
        "host": place.host or None,
        "boot": place.boot or None,
        "pidns": place.pidns or None,
        "user": tried(user),
        "pid": os.getpid(),
        "cwd": tried(os.getcwd),
        "python": sys.executable,
        "os": tried(_release),
        "kernel": tried(lambda: os.uname().release),
    }
    if parts.variables:
        found["job"] = tried(lambda: job_variables(os.environ)) or None
    kept = {key: _valid(value) for key, value in found.items() if value is not None}
    return parts.mark(kept, "hardware", "variables")


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that change what a run computes; paths are a host's, and left out."""
    from cas.tracking.privacy.secrets import scrub_params, valid_text

    allowed = {
        name: valid_text(value)
        for name, value in sorted(environ.items())
        if _is_captured(name) and not value.startswith(("/", "~"))
    }
    # Cut once nothing is in it any more: half of a secret has no form that is known.
    return {name: str(value)[:MAX_VALUE] for name, value in scrub_params(allowed).items()}


def user() -> str:
    """Return the name of this process's user, or `uid N` for one without a name."""
    uid = os.getuid()
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"uid {uid}"


def _is_captured(name: str) -> bool:
    return (
        name in VARIABLES or name.startswith(VARIABLE_PREFIXES) or name.endswith(VARIABLE_ENDINGS)
    )


def _python() -> dict[str, str]:
    import platform

    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
    }


def _platform() -> dict[str, str]:
    names = os.uname()
    found = {"system": names.sysname, "machine": names.machine, "libc": tried(_libc)}
    return {key: value for key, value in found.items() if value}


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        import platform

        return " ".join(platform.libc_ver()).strip()


def _blas() -> dict[str, str] | None:
    """Return which BLAS NumPy was built with, if NumPy is loaded."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    told = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {key: str(told[key]) for key in ("name", "version") if told.get(key)}


def _told(what: str, frameworks: Sequence[Any]) -> dict[str, object]:
    """Return what each framework answers to a question, all together."""
    answers = (tried(partial(_answer, module, what)) or {} for module in frameworks)
    return {key: value for told in answers for key, value in told.items()}


def _answer(module: Any, what: str) -> dict[str, object]:
    return dict(getattr(module, what)())


def _host_name() -> str:
    return os.uname().nodename


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _release() -> str | None:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return None


def _valid(value: Any) -> Any:
    from cas.tracking.privacy.secrets import valid_text

    if isinstance(value, str):
        return valid_text(value)
    return [valid_text(item) for item in value] if isinstance(value, list) else value
