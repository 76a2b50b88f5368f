"""What is installed: distributions, where they came from, conda's packages, lock files.

Read from the files that pip, uv and conda leave; no program is asked. Nothing of the host is in it,
so that equal environments are told equally.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import Distribution

T = TypeVar("T")

LOCK_FILES: Final = (
    *("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "pixi.lock"),
    *("conda-lock.yml", "requirements.lock", "requirements.txt", "environment.yml"),
    *("environment.yaml", "pyproject.toml", "setup.py", "setup.cfg"),
)
MAX_LOCK: Final = 16 * 1024 * 1024
LOCAL: Final = "local"


def installed() -> dict[str, Any]:
    """Return what is installed beside this interpreter.

    `packages` has the version of every distribution by its normalised name, `sources` where those
    came from that are from no index, `conda` name to version, build and channel. What there is
    none of is missing.
    """
    versions, sources = _distributions()
    found = {"packages": versions, "sources": sources, "conda": tried(conda_packages)}
    return {key: value for key, value in found.items() if value or key == "packages"}


def packages() -> dict[str, str]:
    """Return the version of every installed distribution, by normalised name, in order.

    Where two stand on the path, the first counts, as for `import`.
    """
    return _distributions()[0]


def normalised(name: str) -> str:
    """Return a distribution's name in the one form in which names are compared."""
    parts = name.lower().replace("_", "-").replace(".", "-").split("-")
    return "-".join(part for part in parts if part)


def conda_packages(prefix: str = sys.prefix) -> dict[str, str]:
    """Return what conda has installed beside this interpreter, by name: version, build, channel.

    The name of a file in `conda-meta` tells version and build; only the channel stands within.
    """
    found = {}
    for path in sorted(Path(prefix, "conda-meta").glob("*.json")):
        name, version, build = path.stem.rsplit("-", 2)
        channel = tried(lambda path=path: _channel(path)) or ""  # type: ignore[misc]
        found[name] = " ".join(part for part in (version, build, channel) if part)
    return found


def lock_files(top: Path) -> dict[str, str]:
    """Return the BLAKE3 digest of each file at the top of a project that states its packages."""
    from cas.ids import blob_id

    found = {}
    for name in LOCK_FILES:
        path = top / name
        if path.is_file() and path.stat().st_size <= MAX_LOCK:
            found[name] = str(blob_id(path.read_bytes()))
    return found


def source_of(direct_url: object) -> str:
    """Return where a distribution came from, by its `direct_url.json`: PEP 610.

    An address without credentials and a commit or digest behind it; a folder or file of the host is
    `local` or `editable`, whatever its path.
    """
    from cas.tracking.privacy.secrets import scrub_url

    told = direct_url if isinstance(direct_url, Mapping) else {}
    folder, vcs, archive = (told.get(f"{kind}_info") for kind in ("dir", "vcs", "archive"))
    if isinstance(folder, Mapping) and folder.get("editable"):
        return "editable"
    url = str(told.get("url", ""))
    if not url or url.startswith("file:"):
        return LOCAL
    clean = scrub_url(url)
    if isinstance(vcs, Mapping):
        return f"{vcs.get('vcs', 'vcs')}+{clean}@{vcs.get('commit_id', '')}"
    digest = archive.get("hash") if isinstance(archive, Mapping) else None
    return f"{clean}#{digest}" if digest else clean


def tried(read: Callable[[], T]) -> T | None:
    """Return what is read, None when that fails: describing a strange system ends no run."""
    try:
        return read()
    except Exception:  # whatever it does
        return None


def _distributions() -> tuple[dict[str, str], dict[str, str]]:
    from importlib.metadata import distributions

    versions: dict[str, str] = {}
    sources: dict[str, str] = {}
    for distribution in distributions():
        # Only the headers: parsing the whole, long descriptions included, costs ten times as much.
        text = tried(lambda one=distribution: _metadata(one)) or ""  # type: ignore[misc]
        name, version = _headers(text.partition("\n\n")[0], "Name", "Version")
        if not name or not version or normalised(name) in versions:
            continue
        versions[normalised(name)] = version
        told = tried(lambda one=distribution: _direct_url(one))  # type: ignore[misc]
        if told is not None:
            sources[normalised(name)] = source_of(told)
    return dict(sorted(versions.items())), dict(sorted(sources.items()))


def _metadata(distribution: "Distribution") -> str | None:
    return distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")


def _direct_url(distribution: "Distribution") -> object:
    import json

    text = distribution.read_text("direct_url.json")
    return json.loads(text) if text else None


def _channel(path: Path) -> str:
    import json

    from cas.tracking.privacy.secrets import scrub_url

    told = json.loads(path.read_text("utf-8"))
    # An address may have a token in it: `https://host/t/TOKEN/channel`.
    channel = re.sub(r"/t/[^/]+", "", str(told.get("channel", "")))
    return scrub_url(channel) if "://" in channel else os.path.basename(channel)


def _headers(text: str, *names: str) -> Iterator[str]:
    """Yield the value of each header of a distribution's metadata, empty for one it has not."""
    known: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            known.setdefault(key.lower(), value.strip())
    yield from (known.get(name.lower(), "") for name in names)
