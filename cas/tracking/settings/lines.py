"""On which line of a file each key of a config stands, for its errors.

Only looked for once something is wrong, in a file that was read before. What cannot be told is
missing: an error then names the line of what is around it, or none.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Lines = Mapping[tuple[str, ...], int]  # from 1, by the keys that lead to a value

NOTHING: Final[Lines] = {}
MAX_KEYS: Final = 10_000
JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:\n]')
TOML_KEY: Final = re.compile(
    r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"))*)\s*="
)
TOML_TABLE: Final = re.compile(r"\s*\[{1,2}\s*([^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?")
TOML_LONG: Final = ('"""', "'''")


def of_json(text: str) -> Lines:
    """Return the lines of the keys of a JSON text."""
    import json

    found: dict[tuple[str, ...], int] = {}
    path: list[str] = []  # of each open bracket, the key in it that is being read
    line, waiting = 1, ("", 1)
    for token in JSON_TOKEN.findall(text):
        match token:
            case "\n":
                line += 1
            case "{" | "[":
                path.append("")
            case "}" | "]":
                del path[-1:]
            case ":" if path:
                path[-1] = waiting[0]
                found.setdefault(tuple(path), waiting[1])
            case _ if token[0] == '"':
                waiting = json.loads(token, strict=False), line
    return found


def of_toml(text: str, below: tuple[str, ...] = ()) -> Lines:
    """Return the lines of the keys of a TOML text that stand below these tables."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    long = ""
    for number, line in enumerate(text.splitlines(), 1):
        if long:
            long = "" if long in line else long
            continue
        if head := TOML_TABLE.fullmatch(line):
            table = _parts(head[1])
            keys = table
        elif key := TOML_KEY.match(line):
            keys = table + _parts(key[1])
            long = next((quote for quote in TOML_LONG if line.count(quote) == 1), "")
        else:
            continue
        for length in range(len(below) + 1, len(keys) + 1):
            if keys[: len(below)] == below:
                found.setdefault(keys[len(below) : length], number)
    return found


def of_yaml(root: Any) -> Lines:
    """Return the lines of the keys of a YAML text, as the library has composed it."""
    found: dict[tuple[str, ...], int] = {}
    pending: list[tuple[Any, tuple[str, ...]]] = [(root, ())]
    seen: set[int] = set()
    while pending and len(found) < MAX_KEYS:
        node, path = pending.pop()
        if id(node) in seen:
            continue  # what stands behind a name is not gone into again
        seen.add(id(node))
        for name, line, item in _below(node):
            found.setdefault((*path, name), line)
            pending.append((item, (*path, name)))
    return found


def nodes(root: Any) -> Iterator[Any]:
    """Yield every node of a YAML text once, as the library has composed it."""
    pending, seen = [root], {id(root)}
    while pending:
        node = pending.pop()
        yield node
        inside = node.value if node.id == "sequence" else ()
        inside = [one for pair in node.value for one in pair] if node.id == "mapping" else inside
        new = [one for one in inside if id(one) not in seen]
        seen.update(map(id, new))
        pending += new


def line_of(lines: Lines, keys: tuple[str, ...], least: int = 0) -> int | None:
    """Return the line of a value, else that of the nearest thing around it.

    That is looked for while more than `least` keys are left.
    """
    around = (keys[:length] for length in range(len(keys), least, -1))
    return next((lines[one] for one in around if one in lines), None)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in name.split("."))


def _below(node: Any) -> Iterator[tuple[str, int, Any]]:
    """Yield name, line and node of each thing in a map or list."""
    if node.id == "mapping":
        for key, item in node.value:
            if key.id == "scalar":
                yield key.value, key.start_mark.line + 1, item
    elif node.id == "sequence":
        for number, item in enumerate(node.value):
            yield str(number), item.start_mark.line + 1, item
