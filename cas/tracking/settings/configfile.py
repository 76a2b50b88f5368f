"""Which config a run follows, where it is read from, and how it is passed on.

It is the one that the call names, else the one of CAS_CONFIG, else the table `tool.cas` of the next
`pyproject.toml` up to the top of the project. A program that `cas run` or `cas reproduce` has
started follows the config that it was started with, whatever it names itself.
Format: docs/format/runconfig.md.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
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
from cas.tracking.settings.config import Config, in_effect, replaced, resolve
from cas.tracking.settings.configkeys import PARAMS
from cas.tracking.settings.lines import Lines, of_json, of_toml

MAX_SIZE: Final = 1024 * 1024
OF_START: Final = frozenset({"experiment", "name", "params", "labels", "group", "notes"})
PYPROJECT: Final = "pyproject.toml"
TABLE: Final = re.compile(
    rb"""^[ \t]*\[{1,2}[ \t]*tool[ \t]*\.[ \t]*["']?cas["']?[ \t]*[].]""", re.MULTILINE
)
IN_EFFECT: Final = "in-effect"  # a key of files that cas itself has passed on

Read = tuple[dict[str, Any], Callable[[], Lines]]
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
        return _of_file(Path(told if told is not None else passed or ""), chosen, params)
    found = _of_project(folder or Path.cwd())
    if found is None:
        # An environment that was named for others means nothing where there is no config.
        if environment:
            raise InvalidInputError(
                f"no environment {environment!r}: there is no config to take it from; name its file"
            )
        return resolve({}, "the command line", params=params)
    path, (words, lines) = found
    return resolve(words, str(path), environment=chosen, params=params, lines=lines)


def of_command(
    named: str | None, *, environment: str | None = None, params: Mapping[str, Any] | None = None
) -> Config:
    """Return the config that a `cas run` follows, with its own params in it.

    It is a run of its own also inside another: the file that it names itself goes first, and what
    was passed on to it may be overridden.
    """
    if named is None:
        known = config(environment=environment)
    else:
        chosen = environment or os.environ.get(ENVIRONMENT_VARIABLE) or None
        known = _of_file(Path(named), chosen, None)
    if not params:
        return known
    told = replaced(known.words.get(PARAMS, {}), params)
    return Config({**known.words, PARAMS: told}, known.source)


def said_of_run(config: Config) -> dict[str, Any]:
    """Return what a config says of a run that begins now in this process.

    Where the run has begun already, as in a program of `cas run`, what says what it is has been
    noted then, and may have been overridden.
    """
    begun = JOIN_VARIABLE in os.environ
    return {name: it for name, it in config.words.items() if not (begun and name in OF_START)}


def read(path: Path) -> Read:
    """Return what a YAML, JSON or TOML file says, and what tells its lines.

    Raises InvalidInputError and NotFoundError.
    """
    text = _text(path)
    told, lines = _parsed(text, path)
    if path.name == PYPROJECT:
        tool = told.get("tool")
        told = tool.get("cas") if isinstance(tool, dict) else None
        lines = partial(of_toml, text, ("tool", "cas"))
    if told is None:
        return {}, lines
    if not isinstance(told, dict):
        raise InvalidInputError(f"{path} is not a map of settings, as `experiment: digits`")
    return told, lines


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


def _of_file(path: Path, environment: str | None, params: Mapping[str, Any] | None) -> Config:
    words, lines = read(path)
    if words.pop(IN_EFFECT, False):
        return in_effect(words, str(path))
    return resolve(words, str(path), environment=environment, params=params, lines=lines)


def _text(path: Path) -> str:
    """Return the text of a file that is no longer than a config; raise CasError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise NotFoundError("config", str(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(f"cannot read {path}: {reason}") from error
    if len(raw) > MAX_SIZE:
        raise InvalidInputError(f"{path} is larger than {MAX_SIZE:,} bytes: that is no config")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(
            f"{path} line {line}: it is not UTF-8 (byte 0x{raw[error.start]:02x}): save it as UTF-8"
        ) from error


def _parsed(text: str, path: Path) -> tuple[Any, Callable[[], Lines]]:
    if path.suffix not in {".toml", ".json"}:
        from cas.tracking.settings import yamlfile

        return yamlfile.read(text, str(path)), partial(yamlfile.lines, text)
    try:
        if path.suffix == ".toml":
            import tomllib

            return tomllib.loads(text), partial(of_toml, text)
        import json

        told = json.loads(text, object_pairs_hook=_once) if text.strip() else None
        return told, partial(of_json, text)
    except (ValueError, RecursionError) as error:
        kind = path.suffix.removeprefix(".").upper()
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InvalidInputError(f"{path} is no {kind}: {reason}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a map of JSON; raise ValueError for a key that stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one map")
    return found


def _of_project(folder: Path) -> tuple[Path, Read] | None:
    """Return the next `pyproject.toml` up to the top of the project that has a table for cas."""
    for place in (folder, *folder.parents):
        path = place / PYPROJECT
        try:
            with open(path, "rb") as file:
                raw = file.read(MAX_SIZE)
        except OSError:
            raw = b""  # one that may not be read is nobody's config
        if TABLE.search(raw):
            return path, read(path)
        if (place / ".git").exists():
            return None
    return None
