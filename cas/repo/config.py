"""Settings of a repository: a small JSON file of known keys, replaced as a whole.

Format: docs/format/config.md.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.backend.files import while_writing
from cas.errors import CorruptionError, InvalidInputError
from cas.repo.layout import CONFIG
from cas.repo.repo import Repo

MAX_SIZE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: what it means, and how its value is read from text."""

    about: str
    parse: Callable[[str], Any]


def _text(value: str) -> str:
    if not value or len(value) > 1000 or not value.isprintable():
        raise ValueError("one line of text")
    return value


def _mode(value: str) -> str:
    if value not in {"min", "max"}:
        raise ValueError("min or max")
    return value


def _when(value: str) -> str:
    if value not in {"auto", "never"}:
        raise ValueError("auto or never")
    return value


SETTINGS: Final[Mapping[str, Setting]] = {
    "author": Setting("Who commits, instead of user@host.", _text),
    "experiment": Setting("The experiment of runs that name none.", _text),
    "monitor": Setting("The metric that says which checkpoint is best.", _text),
    "mode": Setting("Whether the best value of the monitor is the min or the max.", _mode),
    "repack": Setting("Whether a finished run starts a background repack: auto or never.", _when),
}


def load(repo: Repo) -> dict[str, Any]:
    """Return the settings that are set; raise CorruptionError when the file is damaged."""
    import json

    path = repo.path / CONFIG
    try:
        if path.stat().st_size > MAX_SIZE:
            raise CorruptionError(f"{path} is too large to be a config: restore or delete it")
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CorruptionError(f"{path} is not JSON: restore or delete it") from error
    if not isinstance(value, dict):
        raise CorruptionError(f"{path} is not a map of settings: restore or delete it")
    return value


def get(repo: Repo, key: str) -> Any:
    """Return one setting, None when it is not set; raise InvalidInputError for an unknown key."""
    _known(key)
    return load(repo).get(key)


def change(repo: Repo, key: str, text: str | None) -> Any:
    """Set a key, or with None unset it; return the value. Settings of newer versions stay."""
    setting = _known(key)
    values = load(repo)
    values.pop(key, None)
    if text is not None:
        try:
            values[key] = setting.parse(text)
        except ValueError as error:
            raise InvalidInputError(f"{key} is {error}, not {text!r}") from error
    _write(repo, values)
    return values.get(key)


def _known(key: str) -> Setting:
    if key not in SETTINGS:
        raise InvalidInputError(f"no setting {key!r}; there are {', '.join(SETTINGS)}")
    return SETTINGS[key]


def _write(repo: Repo, values: Mapping[str, Any]) -> None:
    from cas.objects.document import document

    path = repo.path / CONFIG
    temporary = path.with_name(f"{CONFIG}.{os.urandom(8).hex()}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(document(dict(values)))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise while_writing(error, str(path)) from error
