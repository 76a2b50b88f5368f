"""Which parts of what surrounds a run are captured: each can be switched off."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from cas.errors import InvalidInputError, no_such

VARIABLE: Final = "CAS_CAPTURE"
NOT_CAPTURED: Final = "not_captured"  # the key under which a record names what was switched off
ALL: Final = "all"
NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Capture:
    """What is recorded as a run begins; a part that is off is recorded as not captured.

    `code`: the files; `git`: commit, branch, tags, remote, submodules; `environment`: Python,
    platform, settings; `packages`: what is installed; `hardware`: CPU, memory, disk, GPUs;
    `variables`: the environment variables of the fixed list; `command`: how the program was
    started; `rng`: the random generators' states. Without code or command a run cannot be
    reproduced.
    """

    code: bool = True
    git: bool = True
    environment: bool = True
    packages: bool = True
    hardware: bool = True
    variables: bool = True
    command: bool = True
    rng: bool = True

    @classmethod
    def of(cls, *given: "Capture | Mapping[str, Any] | str | None") -> "Capture":
        """Return the first that is given, everything when none is; raise InvalidInputError.

        A map switches single parts, as in a config: `{"packages": False}`.
        """
        for one in given:
            if isinstance(one, Capture):
                return one
            if isinstance(one, str):
                return cls._told(one)
            if one is not None:
                return replace(cls(), **{_known(key): _switch(key, one[key]) for key in one})
        return cls()

    @classmethod
    def of_environment(cls) -> "str | None":
        """Return what the variable CAS_CAPTURE says, None when it is not set."""
        return os.environ.get(VARIABLE) or None

    @classmethod
    def _told(cls, text: str) -> "Capture":
        """Read `all`, `none`, `code,git` (those alone) or `-packages,-hardware` (all but those)."""
        words = [word.strip() for word in text.split(",") if word.strip()]
        if words == [ALL] or not words:
            return cls()
        without = all(word.startswith("-") for word in words)
        named = {_known(word.removeprefix("-")) for word in words if word != NONE}
        return cls(**{field.name: (field.name in named) != without for field in fields(cls)})

    @property
    def off(self) -> tuple[str, ...]:
        """The parts that are switched off."""
        return tuple(name for name, on in asdict(self).items() if not on)

    def mark(self, document: Mapping[str, Any], *parts: str) -> dict[str, Any]:
        """Return a document with those of these parts named that are switched off."""
        off = [part for part in parts if part in self.off]
        return {**document, **({NOT_CAPTURED: off} if off else {})}


EVERYTHING: Final = Capture()


def was_captured(document: object, part: str) -> bool:
    """Say whether a document of a record has a part, or tells that it was switched off."""
    return not isinstance(document, dict) or part not in document.get(NOT_CAPTURED, ())


def _known(name: str) -> str:
    names = [field.name for field in fields(Capture)]
    if name not in names:
        raise no_such("capture: no part", name, names)
    return name


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(f"capture.{name} is true or false, not {value!r}")
    return value
