"""Which config a run follows, where it is read from, and how it is passed on.

It is the one that the call names, else the one of CAS_CONFIG, else the table `tool.cas` of the next
`pyproject.toml` up to the top of the project. A program that `cas run` or `cas reproduce` has
started follows the config that it was started with, whatever it names itself.
Format: docs/format/runconfig.md.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cas.errors import InvalidInputError, NotFoundError
from cas.objects.document import document
from cas.tracking.captured.variables import (
    CONFIG_VARIABLE,
    ENVIRONMENT_VARIABLE,
    JOIN_VARIABLE,
    ORIGINAL_VARIABLE,
)
from cas.tracking.settings.config import Config, in_effect, resolve

MAX_SIZE: Final = 1024 * 1024
OF_START: Final = frozenset({"experiment", "name", "params", "labels", "group", "notes"})
PYPROJECT: Final = "pyproject.toml"
TABLE: Final = b"[tool.cas"
IN_EFFECT: Final = "in-effect"  # a key of files that cas itself has passed on

Given = Config | Mapping[str, Any] | str | os.PathLike[str] | None


def config(
    told: Given = None,
    *,
    environment: str | None = None,
    params: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Config:
    """Return the config in effect: of a file, of a map, or what the surroundings say.

    Inside `cas run --config FILE` it is that of the command line. `environment` (else CAS_ENV, else
    what the config itself says) chooses a named environment; `params` replace params, by names
    joined with dots. Without any config it says nothing. Raises InvalidInputError that names the
    file, the key and what is accepted, and NotFoundError for a file that is not there.
    """
    passed = os.environ.get(CONFIG_VARIABLE)
    joined, again = JOIN_VARIABLE in os.environ, ORIGINAL_VARIABLE in os.environ
    # What a reproduced program says in its own code, it says again.
    if passed and (joined or (again and not isinstance(told, Config | Mapping))):
        told = passed
    chosen = environment or os.environ.get(ENVIRONMENT_VARIABLE) or None
    if isinstance(told, Config):
        return told
    if isinstance(told, Mapping):
        return resolve(told, environment=chosen, params=params)
    if told is not None or passed:
        path = Path(told if told is not None else passed or "")
        words = read(path)
        if words.pop(IN_EFFECT, False):
            return in_effect(words, str(path))
        return resolve(words, str(path), environment=chosen, params=params)
    found = _of_project(folder or Path.cwd())
    if found is None:
        # An environment that was named for others means nothing where there is no config.
        return resolve({}, "the command line", environment=environment, params=params)
    path, words = found
    return resolve(words, str(path), environment=chosen, params=params)


def said_of_run(config: Config) -> dict[str, Any]:
    """Return what a config says of a run that begins now in this process.

    Where the run has begun already, as in a program of `cas run`, what says what it is has been
    noted then, and may have been overridden.
    """
    begun = JOIN_VARIABLE in os.environ
    return {name: it for name, it in config.words.items() if not (begun and name in OF_START)}


def read(path: Path) -> dict[str, Any]:
    """Return what a YAML, JSON or TOML file says; raise InvalidInputError and NotFoundError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise NotFoundError("config", str(path)) from None
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > MAX_SIZE:
        raise InvalidInputError(f"{path} is larger than {MAX_SIZE:,} bytes: that is no config")
    told = _parsed(raw, path)
    if path.name == PYPROJECT and isinstance(told, dict):
        told = told.get("tool", {}).get("cas", {})
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise InvalidInputError(f"{path} is not a map of settings")
    return told


@contextmanager
def passed_on(config: Config) -> Iterator[dict[str, str]]:
    """Yield the variables by which a program gets this config; its file goes afterwards."""
    if not config.words:
        yield {}
        return
    handle, path = tempfile.mkstemp(prefix="cas-config-", suffix=".json")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(document({**config.words, IN_EFFECT: True}))
        yield {CONFIG_VARIABLE: path}
    finally:
        Path(path).unlink(missing_ok=True)


def _parsed(raw: bytes, path: Path) -> Any:
    try:
        text = raw.decode("utf-8-sig")
        if path.suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
        if path.suffix == ".json":
            import json

            return json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = path.suffix.removeprefix(".").upper() or "text"
        raise InvalidInputError(f"{path} is no {kind}: {error}") from error
    from cas.tracking.settings import yamlfile

    return yamlfile.read(text, str(path))


def _of_project(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the next `pyproject.toml` up to the top of the project that has a table for cas."""
    for place in (folder, *folder.parents):
        path = place / PYPROJECT
        try:
            if path.is_file() and TABLE in path.read_bytes()[:MAX_SIZE]:
                return path, read(path)
        except OSError:
            pass  # one that may not be read is nobody's config
        if (place / ".git").exists():
            return None
    return None
