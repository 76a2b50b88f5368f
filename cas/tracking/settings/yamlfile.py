"""YAML as its version 1.2 has it, read and written; the only home of PyYAML.

PyYAML follows version 1.1, where `1e-4` is text and `no` is false: nobody who writes a learning
rate means that. So numbers and truth values are those of the core schema of 1.2. Only plain data is
made of a file: no tag makes an object.
"""

from functools import cache
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.tracking.settings.lines import NOTHING, Lines, nodes, of_yaml

# The core schema of YAML 1.2, section 10.3: what a plain text is, and how such a one can begin.
SCHEMA: Final = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)
MERGE: Final = "tag:yaml.org,2002:merge"
MAX_MERGED: Final = 100_000  # pairs of maps that `<<` brings into others
BREAK: Final = "\n"
BREAKS: Final = frozenset("\x85\u2028\u2029\ufeff")
TAG: Final = "tag:yaml.org,2002:"


def read(text: str, name: str) -> Any:
    """Return what a YAML text says; `name` is what an error calls it.

    Raises InvalidInputError for a text that is no YAML, that says a key twice, or that holds more
    than plain data.
    """
    yaml = _yaml()
    try:
        loader = _loader()(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _insist_on_single_keys(root, name)
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"{name} is no YAML: {_told(error, text)}") from error
    except InvalidInputError:
        raise
    except RecursionError as error:
        raise InvalidInputError(f"{name} is no YAML: it is nested too deeply") from error
    except ValueError as error:
        raise InvalidInputError(f"{name} is no YAML: {error}") from error


def lines(text: str) -> Lines:
    """Return the lines of the keys of a text that `read` has read."""
    root = _loader()(text).get_single_node()
    return NOTHING if root is None else of_yaml(root)


def write(value: object) -> str:
    """Return plain data as YAML; keys stand in the order of the maps.

    What either version of YAML would read as something else stands in quotes.
    """
    text: str = _yaml().dump(
        value, Dumper=_dumper(), allow_unicode=True, sort_keys=False, default_flow_style=False
    )
    return text


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise InvalidInputError(
            "YAML needs the library PyYAML: `pip install pyyaml`, or write JSON or TOML"
        ) from None
    return yaml


def _told(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None) or error}"
    at, character = getattr(error, "position", None), getattr(error, "character", None)
    if isinstance(at, int) and isinstance(character, int):
        return f"line {text.count(BREAK, 0, at) + 1}: U+{character:04X} may not stand in it"
    return str(getattr(error, "problem", None) or error)


def _insist_on_single_keys(root: Any, name: str) -> None:
    """Raise InvalidInputError for a map that says a key twice.

    Before anything is made of the text: then maps have what `<<` brings in among their own.
    """
    for node in nodes(root):
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value if node.id == "mapping" else ():
            if key.id != "scalar" or key.tag == MERGE:
                continue
            known, line = (key.tag, key.value), key.start_mark.line + 1
            if known in seen:
                raise InvalidInputError(
                    f"{name} line {line}: the key {key.value!r} stands twice, "
                    f"on line {seen[known]} too"
                )
            seen[known] = line


@cache
def _loader() -> Any:
    import re

    yaml: Any = _yaml()

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Plain data by the core schema."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

        merged = 0

        def flatten_mapping(self, node: Any) -> None:
            """Bring in what `<<` names: of maps that double each other, no more than so many."""
            named = [value for key, value in node.value if key.tag == MERGE]
            listed = (one.value if one.id == "sequence" else [one] for one in named)
            sources = [one for some in listed for one in some if one.id == "mapping"]
            for source in sources:
                self.flatten_mapping(source)
            self.merged += sum(len(source.value) for source in sources)
            if self.merged > MAX_MERGED:
                raise yaml.constructor.ConstructorError(
                    None, None, f"`<<` brings in more than {MAX_MERGED:,} values", node.start_mark
                )
            super().flatten_mapping(node)

    for kind, pattern, first in SCHEMA:
        Loader.add_implicit_resolver(f"{TAG}{kind}", re.compile(f"(?:{pattern})\\Z"), first)
    Loader.add_constructor(f"{TAG}int", lambda loader, node: _whole(loader.construct_scalar(node)))
    return Loader


def _whole(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


@cache
def _dumper() -> Any:
    import re

    yaml: Any = _yaml()

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Every value in full, and text in quotes where it could be read as a number."""

        yaml_implicit_resolvers = {  # noqa: RUF012
            key: list(known) for key, known in yaml.SafeDumper.yaml_implicit_resolvers.items()
        }

        def ignore_aliases(self, data: object) -> bool:
            return True

        def represent_str(self, data: str) -> Any:
            # Outside double quotes these end a line, and come back as something else.
            style = '"' if not BREAKS.isdisjoint(data) else None
            return self.represent_scalar(f"{TAG}str", data, style)

    Dumper.add_representer(str, Dumper.represent_str)

    for kind, pattern, first in SCHEMA:
        Dumper.add_implicit_resolver(f"{TAG}{kind}", re.compile(f"(?:{pattern})\\Z"), first)
    return Dumper
