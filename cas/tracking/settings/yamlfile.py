"""YAML as its version 1.2 has it, read and written; the only home of PyYAML.

PyYAML follows version 1.1, where `1e-4` is text and `no` is false: nobody who writes a learning
rate means that. So numbers and truth values are those of the core schema of 1.2. Only plain data is
made of a file: no tag makes an object.
"""

from functools import cache
from typing import Any, Final

from cas.errors import InvalidInputError

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
BREAKS: Final = frozenset("\x85\u2028\u2029\ufeff")
TAG: Final = "tag:yaml.org,2002:"


def read(text: str, name: str) -> Any:
    """Return what a YAML text says; `name` is what an error calls it.

    Raises InvalidInputError for a text that is no YAML, that says a key twice, or that holds more
    than plain data.
    """
    yaml = _yaml()
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise InvalidInputError(f"{name} is no YAML: {_told(error)}") from error
    except (RecursionError, ValueError) as error:
        raise InvalidInputError(f"{name} is no YAML: {error}") from error


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


def _told(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)


@cache
def _loader() -> Any:
    import re

    yaml: Any = _yaml()

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Plain data by the core schema; a key that stands twice is an error."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = {"<<"}
            for key in [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
                if key in seen and key != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands twice", node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep=deep)

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
