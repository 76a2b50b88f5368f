"""A program that `cas run` runs: how it is called, and what its arguments and files say."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.tracking.captured.capture import as_params
from cas.tracking.captured.command import parse
from cas.tracking.privacy.secrets import scrub_argv, valid_text

NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and what goes in and comes out."""

    argv: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    metrics: str | None = None

    def document(self, cwd: Path) -> dict[str, Any]:
        """Return what another start of the same program needs, free of secrets."""
        script = script_at(self.argv, cwd)
        paths = {"inputs": self.inputs, "outputs": self.outputs}
        return {
            "kind": "command",
            "argv": scrub_argv(self.argv),
            **({} if script is None else {"script": script}),
            **({"params": as_params(self.params)} if self.params else {}),
            **{key: list(map(valid_text, given)) for key, given in paths.items() if given},
            **({"metrics": valid_text(self.metrics)} if self.metrics else {}),
        }

    @classmethod
    def from_document(cls, value: Mapping[str, Any]) -> "Program":
        """Return the program that `document` told of."""
        return cls(
            tuple(value["argv"]),
            value.get("params", {}),
            tuple(value.get("inputs", ())),
            tuple(value.get("outputs", ())),
            value.get("metrics"),
        )


def argument_params(argv: Sequence[str]) -> dict[str, Any]:
    """Return what `--key value`, `--key=value` and lone `--flag` arguments say, up to a `--`."""
    found: dict[str, Any] = {}
    waiting: str | None = None
    for argument in argv[1:]:
        if argument == "--":
            break
        if argument.startswith("--"):
            if waiting:
                found[waiting] = True
            key, equals, value = argument[2:].partition("=")
            waiting = None if equals else key
            if equals and key:
                found[key] = scalar(value)
        elif waiting:
            found[waiting] = scalar(argument)
            waiting = None
    if waiting:
        found[waiting] = True
    return found


def scalar(text: str) -> Any:
    """Return the number or truth value that a text is, else the text."""
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if NUMBER.fullmatch(text):
        return float(text) if any(c in text for c in ".eE") else int(text)
    return text


def read_metrics(path: Path) -> list[tuple[int | None, dict[str, float]]]:
    """Return the points in a JSON or CSV file, each with its step if it has one."""
    try:
        rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
        points = []
        for row in rows:
            numbers = {k: float(v) for k, v in row.items() if _is_number(v) and k != "step"}
            step = row.get("step", "")
            if numbers:
                points.append((int(float(step)) if _is_number(step) else None, numbers))
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(f"cannot read metrics from {path}: {reason}") from error
    return points


def script_at(argv: Sequence[str], cwd: Path) -> int | None:
    """Return which argument is the file that is run, None when that is no file of the user's."""
    if Path(argv[0]).name.startswith("python"):
        _, kind, rest = parse(argv)
        places = [len(argv) - len(rest)] if kind == "script" else []
    elif os.path.dirname(argv[0]):
        places = [0]
    else:
        places = [n for n, one in enumerate(argv) if n and not one.startswith("-")][:1]
    return next((n for n in places if (cwd / argv[n]).is_file()), None)


def script_of(argv: Sequence[str], cwd: Path) -> Path | None:
    """Return the absolute path of that file."""
    place = script_at(argv, cwd)
    return None if place is None else Path(os.path.abspath(cwd / argv[place]))


def subject(argv: Sequence[str], cwd: Path) -> str:
    """Return what a run of the program is named after."""
    script = script_of(argv, cwd)
    return script.stem if script else Path(argv[0]).name


def _json_rows(path: Path) -> list[dict[str, Any]]:
    import json

    value = json.loads(path.read_text())
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected an object of numbers, or a list of them")
    return rows


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    import csv

    with open(path, newline="") as source:
        return list(csv.DictReader(source))


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return NUMBER.fullmatch(value.strip()) is not None or value.strip().lower() == "nan"
    return isinstance(value, int | float) and not isinstance(value, bool)
