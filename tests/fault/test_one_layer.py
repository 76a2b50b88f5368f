"""All that is written into a repository goes through one layer, and tests see all of that layer."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faulty import HINTS, WatchedOps, operations

# What changes the disk, by the module it is called on; a method of a path counts on anything.
CALLS = {
    "os": {
        "open", "write", "writev", "pwrite", "pwritev", "sendfile", "copy_file_range", "replace",
        "rename", "renames", "unlink", "remove", "removedirs", "mkdir", "makedirs", "rmdir", "link",
        "symlink", "fsync", "fdatasync", "sync", "truncate", "ftruncate", "chmod", "fchmod",
        "chown", "fchown", "utime", "mkfifo", "fdopen",
    },
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move", "rmtree"},
    "tempfile": {"mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile"},
}  # fmt: skip
METHODS = {
    "write_bytes", "write_text", "unlink", "mkdir", "rmdir", "touch", "chmod", "symlink_to",
    "hardlink_to",
}  # fmt: skip
LAYER = "cas/backend/files.py"
# Files of the user, outside of every repository.
OUTSIDE = {
    "cas/repo/trees/folder.py": "what is checked out",
    "cas/tracking/ends/liveness.py": "a journal is opened to be locked",
    "cas/tracking/rebuild.py": "a folder to reproduce a run in",
    "cas/tracking/reproduce.py": "likewise",
    "cas/tracking/follow.py": "what a program prints is passed on",
    "cas/tracking/privacy/cleanlog.py": "what a program prints is written to by its threads",
    "cas/tracking/runfiles.py": "likewise",
    "cas/tracking/settings/configfile.py": "a config on its way to the program that is run",
    "cas/tracking/numbers/exchange.py": "a table that was asked for",
    "cas/tracking/export.py": "a record that was asked for",
    "cas/tracking/models.py": "a tokenizer writes itself to a folder, which is stored",
    "cas/tracking/privacy/redacted.py": "the code of a reproduction, with its secrets put back",
    "cas/tracking/sinks/jsonlines.py": "a log that was asked for",
    "cas/tracking/sinks/tensorboard.py": "a log that was asked for",
    "cas/tracking/userfile.py": "what is written for the user, as a whole",
}
SOURCES = sorted(str(path) for path in Path("cas").rglob("*.py"))


def writes(source: str) -> Iterator[tuple[int, str]]:
    """Yield the calls in a module that change the disk, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Attribute(value=ast.Name("os"), attr="open") if _only_reads(node):
                pass
            case ast.Attribute(value=ast.Name(module), attr=name) if name in CALLS.get(module, ()):
                yield node.lineno, f"{module}.{name}"
            # `ops.unlink(path)` is the layer itself: a name or attribute that ends so.
            case ast.Attribute(value=ast.Name(owner) | ast.Attribute(attr=owner), attr=name) if (
                name in METHODS and owner.lstrip("_") != "ops"
            ):
                yield node.lineno, f"{owner}.{name}"
            case ast.Attribute(value=ast.Call() | ast.BinOp(), attr=name) if name in METHODS:
                yield node.lineno, f"….{name}"
            case ast.Name("open") | ast.Attribute(attr="open") if _writes(node):
                yield node.lineno, "open"


def _only_reads(call: ast.Call) -> bool:
    flags = {name.attr for name in ast.walk(call) if isinstance(name, ast.Attribute)}
    return "O_RDONLY" in flags and not flags & {"O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR"}


def _writes(call: ast.Call) -> bool:
    words = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
    modes = [word.value for word in words if isinstance(word, ast.Constant)]
    return any(isinstance(mode, str) and mode[:1] in set("wax") for mode in modes) or any(
        isinstance(mode, str) and mode in {"r+", "rb+", "r+b"} for mode in modes
    )


@pytest.mark.parametrize("path", SOURCES)
def test_nothing_but_the_layer_changes_the_disk(path: str) -> None:
    found = list(writes(Path(path).read_text()))
    if path == LAYER:
        assert len(found) > 10
    elif path in OUTSIDE:
        assert found, f"{path} changes nothing any more: take it off the list"
    else:
        assert found == [], f"{path} writes past {LAYER}; a method of FileOps does that"


@pytest.mark.parametrize(
    "line",
    [
        "os.replace(a, b)", "path.unlink()", "(folder / name).write_bytes(raw)", "open(p, 'wb')",
        "path.open('xb')", "shutil.rmtree(p)", "Path(p).mkdir()", "self._path.touch()",
        "open(p, mode='a')", "path.open('r+b')", "os.open(p, os.O_RDWR)",
        "os.open(p, flags)",
    ],
)  # fmt: skip
def test_a_write_past_the_layer_would_be_seen(line: str) -> None:
    assert [at for at, _ in writes(f"import os\n{line}\n")] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "ops.unlink(path)", "self._ops.mkdir(path, mode)", "open(path, 'rb')", "open(path)",
        "os.open(path, os.O_RDONLY | os.O_CLOEXEC)",
    ],
)  # fmt: skip
def test_the_layer_and_reading_are_no_writes(line: str) -> None:
    assert list(writes(line)) == []


def test_fakes_see_every_operation() -> None:
    watched = {name for name, _ in inspect.getmembers(WatchedOps, inspect.isfunction)}
    own = {name for name in watched if name in vars(WatchedOps)}
    assert operations() <= own, "tests would not see these"
    assert not HINTS & own
