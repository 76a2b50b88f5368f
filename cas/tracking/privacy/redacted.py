"""What the filter took out of a record: where, and of which kind; never what it was.

Code from which a secret was taken is not exact: it does not run as it stands. A reproduction takes
each value from the environment variable that is named here, or says which one it needs.
Format: docs/format/run.md.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from cas.errors import RefusedError
from cas.objects.document import document, read_document
from cas.objects.kind import Kind
from cas.objects.tree import Entry
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.privacy.secretnames import is_secret_name
from cas.tracking.privacy.secrets import NAMED, REMOVED, UNKNOWN, Taken, changed, valid_text

DOCUMENT: Final = "redacted.json"
COMMAND: Final = "command.json"
MOST: Final = 100  # places that are listed of one log
_UNNAMED: Final = "CAS_SECRET_"


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that a reproduction needs: of which file of the code, or of the command."""

    path: str | None
    line: int
    place: int
    kind: str
    variable: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.path else "the command"
        return f"{where} ({self.kind}): {self.variable}"


def report(
    code: Mapping[bytes, Sequence[Taken]], documents: Mapping[str, object]
) -> dict[str, Any]:
    """Return what was taken out of code and documents, in order; empty for nothing."""
    told: list[dict[str, Any]] = []
    variables = _Variables()
    for path, taken in sorted(code.items()):
        where = f"code/{valid_text(os.fsdecode(path))}"
        for one in taken:
            variable = variables.named(one.name, one.mark)
            told.append(
                {
                    "where": where,
                    "line": one.line,
                    "place": one.place,
                    "kind": one.kind,
                    "variable": variable,
                }
            )
    command = documents.get(COMMAND)
    argv = command.get("argv", ()) if isinstance(command, Mapping) else ()
    for place, variable in _arguments(argv, variables):
        kind = _kind_of(variable)
        told.append({"where": COMMAND, "place": place, "kind": kind, "variable": variable})
    for name, value in sorted(documents.items()):
        hidden = {"argv", "params"} if name == COMMAND else set()
        told += [
            {"where": name, "kind": _kind_of(key), "key": key}
            for key in _keys(value, hidden=hidden)
            if key
        ]
    return {"taken": told} if told else {}


def at_the_end(
    tx: Transaction,
    captured: Mapping[str, Entry],
    taken: Mapping[str, Sequence[Taken]],
    counted: Mapping[str, Mapping[str, int]],
) -> dict[str, Entry]:
    """Return the report that a run ends with: what was captured, and what was taken out since.

    Of some places all that is missing is known, of others how much of each kind.
    """
    if not any(taken.values()) and not counted:
        return {}
    before = captured.get(DOCUMENT)
    told: Any = {} if before is None else read_document(tx.repo.store.read(Kind.BLOB, before.id))
    known = list(told.get("taken", ())) if isinstance(told, dict) else []
    for where, found in sorted(taken.items()):
        listed = [{"where": where, "line": one.line, "kind": one.kind} for one in found]
        known += listed[:MOST]
        if len(listed) > MOST:
            known.append({"where": where, "more": len(listed) - MOST})
    for where, kinds in sorted(counted.items()):
        known += [{"where": where, "kind": kind, "count": n} for kind, n in sorted(kinds.items())]
    text = document({"taken": known})
    return {DOCUMENT: ingest.file_entry(tx.writer, DOCUMENT.encode(), text)}


def by_place(told: object) -> dict[str, int]:
    """Return how much was taken out at each place of a report; what makes no sense is nothing."""
    taken = told.get("taken") if isinstance(told, dict) else None
    places: dict[str, int] = {}
    for one in taken if isinstance(taken, list) else ():
        where = one.get("where") if isinstance(one, dict) else None
        count = one.get("count", one.get("more", 1)) if isinstance(where, str) else None
        if isinstance(where, str) and isinstance(count, int):
            places[where] = places.get(where, 0) + count
    return places


def is_exact(told: object) -> bool:
    """Say whether the code of a record is as it was, by its report; without one it is."""
    return not any(one.path for one in missing(told))


def missing(told: object) -> tuple[Missing, ...]:
    """Return the values that code and command lack, from a report; what makes no sense is none."""
    taken = told.get("taken") if isinstance(told, dict) else None
    return tuple(_missing(taken if isinstance(taken, list) else ()))


def insist_on(needed: Iterable[Missing], environ: Mapping[str, str]) -> None:
    """Raise RefusedError that names every value which the environment does not have."""
    lacking = [one for one in needed if not environ.get(one.variable)]
    if lacking:
        listed = "; ".join(map(str, lacking[:5]))
        more = f"; and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise RefusedError(
            "the code is not exact, secrets were taken out as it was captured: set these "
            f"variables to their values and try again: {listed}{more}"
        )


def give_back(top: Path, needed: Iterable[Missing], environ: Mapping[str, str]) -> None:
    """Put the values into the files of code below a folder, where they stood."""
    by_path: dict[str, list[Missing]] = {}
    for one in needed:
        if one.path is not None:
            by_path.setdefault(one.path, []).append(one)
    for path, wanted in by_path.items():
        file = top / path
        values = {one.place: environ[one.variable] for one in wanted}
        if file.is_file() and not file.is_symlink():
            file.write_bytes(changed(file.read_bytes(), partial(_filled, values=values)))


def given_argv(
    argv: Sequence[str], needed: Iterable[Missing], environ: Mapping[str, str]
) -> list[str]:
    """Return a command's arguments with the values in the place of what was taken out."""
    values = [environ[one.variable] for one in needed if one.path is None]
    given = iter(values)
    return [
        argument.replace(REMOVED, next(given, REMOVED)) if REMOVED in argument else argument
        for argument in argv
    ]


def _kind_of(key: str) -> str:
    """Return why a value went that stood under a name, as far as the name tells it."""
    return NAMED if is_secret_name(re.sub(r"(?:\[\d+\])+\Z", "", key)) else UNKNOWN


class _Variables:
    """The environment variables that stand for secrets: their own names, else numbers.

    Two secrets of one name are told apart by a number too.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, int], str] = {}

    def named(self, name: str, mark: int) -> str:
        """Return the variable for a secret that is given to `name`, empty where it has none."""
        word = re.sub(r"[^A-Z0-9]+", "_", name.rpartition(".")[2].upper()).strip("_")
        word = "" if word[:1].isdigit() else word
        known = self._of.get((word, mark))
        if known is None:
            number = 1 + sum(before == word for before, _ in self._of)
            known = f"{word}_{number}" if word and number > 1 else word or f"{_UNNAMED}{number}"
            self._of[word, mark] = known
        return known


def _arguments(argv: Sequence[str], variables: _Variables) -> Iterator[tuple[int, str]]:
    for place, argument in enumerate(argv):
        if REMOVED not in argument:
            continue
        name, equals, _ = argument.partition("=")
        if not equals:
            before = argv[place - 1] if place else ""
            name = before if before.startswith("-") and "=" not in before else ""
        yield place, variables.named(name.lstrip("-"), -place)


def _keys(value: object, at: str = "", hidden: Iterable[str] = ()) -> Iterator[str]:
    """Yield the dotted names under which something was taken out."""
    if isinstance(value, str) and REMOVED in value:
        yield at
    elif isinstance(value, Mapping):
        for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
            if key not in hidden:
                yield from _keys(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _keys(item, f"{at}[{number}]")


def _missing(told: Iterable[object]) -> Iterator[Missing]:
    for one in told:
        known = one if isinstance(one, dict) else {}
        where, variable, place = (known.get(key) for key in ("where", "variable", "place"))
        if not (isinstance(where, str) and isinstance(variable, str) and isinstance(place, int)):
            continue
        line, kind = known.get("line"), str(known.get("kind", "secret"))
        if where == COMMAND:
            yield Missing(None, 0, place, kind, variable)
        elif where.startswith("code/"):
            number = line if isinstance(line, int) else 0
            yield Missing(where.removeprefix("code/"), number, place, kind, variable)


def _filled(text: str, values: Mapping[int, str]) -> str:
    pieces = text.split(REMOVED)
    filled = [pieces[0]]
    for place, piece in enumerate(pieces[1:]):
        filled += [values.get(place, REMOVED), piece]
    return "".join(filled)
