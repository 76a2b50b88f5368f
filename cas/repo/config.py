"""Settings of a repository: a small JSON file of known keys, replaced as a whole.

Format: docs/format/config.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cas.backend.wholefile import replace_file
from cas.errors import CorruptionError, InvalidInputError, no_such
from cas.repo.layout import CONFIG
from cas.repo.repo import Repo
from cas.repo.retain.retention import Keep
from cas.repo.retain.vocabulary import PREFIX, RUNS, WORDS, settled

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
    "gc.auto": Setting(
        "Whether a collection starts in the background when one is due: auto or never.", _when
    ),
    **{f"{PREFIX}{name}": Setting(word.about, word.read) for name, word in WORDS.items()},
    f"{PREFIX}{RUNS}": Setting(
        "Whether runs without a policy of their own follow this one, but for its budget, as they "
        "go: auto or never.",
        _when,
    ),
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
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"{path} is not JSON: restore or delete it") from error
    if not isinstance(value, dict):
        raise CorruptionError(f"{path} is not a map of settings: restore or delete it")
    return value


def get(repo: Repo, key: str) -> Any:
    """Return one setting, None when it is not set; raise InvalidInputError for an unknown key."""
    _known(key)
    return load(repo).get(key)


def policy(repo: Repo, *, of_runs: bool = False) -> Keep | None:
    """Return the retention policy that is set, None for none.

    With `of_runs`, the one that runs follow as they go: a budget is of all runs together, and not
    in it. Raises InvalidInputError and UnsupportedError for one that makes no sense.
    """
    values = load(repo)
    keep = settled(values)
    if not of_runs or keep is None:
        return keep
    keep = replace(keep, budget=None)
    return keep if values.get(f"{PREFIX}{RUNS}") == "auto" and not keep.empty else None


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
        raise no_such("no setting", key, SETTINGS)
    return SETTINGS[key]


def _write(repo: Repo, values: Mapping[str, Any]) -> None:
    from cas.objects.document import document

    replace_file(repo.path, CONFIG, document(dict(values)), ops=repo.ops)
