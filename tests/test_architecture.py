"""The house rules that a machine can check."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LAYERS = [
    {"errors"},
    {"ids"},
    {"progress", "plain"},
    {"codec", "backend"},
    {"objects"},
    {"store"},
    {"repo"},
    {"remote", "lineage"},
    {"tracking"},
    {"integrations", "ui"},
]
HOMES = {
    "blake3": "cas/ids.py",
    "zstandard": "cas/codec/compress.py",
    "pyfastcdc": "cas/codec/chunker.py",
    "msgpack": "cas/objects/canonical.py",
    "torch": "cas/integrations/",
    "PIL": "cas/tracking/media/image.py",
    "tensorboard": "cas/tracking/sinks/tensorboard.py",
    "yaml": "cas/tracking/settings/yamlfile.py",
}
# Nothing that cas reads is ever unpickled: these names do not occur outside the tests.
PICKLES = {"pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
MAX_LINES = 400

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
TOP = [Path("cas/__init__.py"), Path("cas/__main__.py")]
LIBRARY = sorted(path for path in Path("cas").rglob("*.py") if path not in TOP)
COMMANDS = sorted(Path("cli").rglob("*.py"))
EXAMPLES = sorted(Path("docs/examples").rglob("*.py"))
every_module = pytest.mark.parametrize("path", LIBRARY, ids=str)
every_file = pytest.mark.parametrize("path", [*TOP, *LIBRARY, *COMMANDS, *EXAMPLES], ids=str)


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything a module imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(str(module), names):
                yield from (f"{module}.{alias.name}" for alias in names)


def room(dotted: str) -> str:
    """Return the part of the house that `cas.room.module` lives in."""
    return dotted.split(".")[1]


@every_module
def test_imports_point_down(path: Path) -> None:
    own = room(".".join(path.with_suffix("").parts))
    seen = {room(name) for name in imports(path) if name.startswith("cas.")}
    upward = {other for other in seen - {own} if LEVEL[other] >= LEVEL[own]}
    assert not upward, f"{path} reaches up or sideways, to {sorted(upward)}"


@every_file
def test_each_library_has_one_home(path: Path) -> None:
    guests = {name.split(".")[0] for name in imports(path)} & HOMES.keys()
    strays = {name for name in guests if not path.as_posix().startswith(HOMES[name])}
    if path in EXAMPLES:
        strays -= {"torch"}
    assert not strays, f"{path} imports {sorted(strays)}; ask its home instead"


@every_file
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@every_file
def test_no_pickle_is_ever_executed(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & PICKLES
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("torch"), attr="load")):
                pytest.fail(f"{path}:{node.lineno} calls torch.load")
            case ast.keyword(arg="allow_pickle", value=value):
                refused = isinstance(value, ast.Constant) and value.value is False
                assert refused, f"{path}:{node.lineno} allows pickle"
            case ast.Call(func=ast.Attribute(attr="read_pickle")):
                pytest.fail(f"{path}:{node.lineno} reads a pickle")


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_nothing_imports_the_commands(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith(("cas.cli", "cli"))]
