"""How this process was started, so that it can be started again."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cas.tracking.names import make_name
from cas.tracking.privacy.secrets import scrub_argv

# Options of the interpreter that take a value, which may stand in the next argument.
_WITH_VALUE: Final = "XW"


def command() -> dict[str, Any]:
    """Return kind, interpreter options and arguments of this process, free of secrets.

    `kind` is script, module, inline (`python -c`), notebook, interactive or frozen. `argv` starts
    with the script (relative to the current folder), the module, the code or the program; it is
    empty for a notebook and an interactive interpreter.
    """
    if getattr(sys, "frozen", False):  # a program that brings its interpreter along
        argv = scrub_argv([_script(sys.executable), *sys.argv[1:]])
        return {"kind": "frozen", "python": [], "argv": argv}
    options, kind, argv = parse(sys.orig_argv)
    clean = scrub_argv(options)
    if kind == "interactive" or shell():
        return {"kind": "notebook" if _notebook() else "interactive", "python": clean, "argv": []}
    if kind == "script":
        argv = [_script(argv[0]), *argv[1:]]
    started: dict[str, Any] = {"kind": kind, "python": clean, "argv": scrub_argv(argv)}
    if kind == "module":
        started["module"] = argv[0]
    return started


def restart(started: dict[str, Any], python: str) -> list[str]:
    """Return the arguments that start a captured command again with this interpreter."""
    flag = {"module": ["-m"], "inline": ["-c"]}.get(started["kind"], [])
    return [python, *started["python"], *flag, *started["argv"]]


def entry_point() -> Path | None:
    """Return the absolute path of the script, module or notebook that runs, if it is a file."""
    if shell():
        return notebook_file()
    main = sys.modules.get("__mp_main__") or sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if not isinstance(file, str):
        return None
    path = Path(os.path.abspath(file))
    return path if path.is_file() else None


def default_experiment() -> str:
    """Return the name of an experiment that nobody named: the script's, where there is one."""
    started = command()
    if started["kind"] in {"notebook", "interactive", "inline"}:
        file = notebook_file()
        default = "notebook" if started["kind"] == "notebook" else "interactive"
        return make_name(file.stem, default) if file else default
    if started["kind"] == "module":
        name = started["module"].removesuffix(".__main__").rpartition(".")[2]
        return make_name(name, "module")
    path = entry_point() or Path(started["argv"][0])
    stem = path.parent.name if path.stem == "__main__" else path.stem
    return make_name(stem, "script")


def parse(argv: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Split what started the interpreter into its options, the kind, and what follows them."""
    options: list[str] = []
    rest = list(argv[1:])
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            return options, "script", [argument, *rest]
        if argument == "-":
            break
        if argument.startswith("--"):
            options.append(argument)
            if argument == "--check-hash-based-pycs" and rest:
                options.append(rest.pop(0))
            continue
        flags, letter, value = _split_flags(argument)
        options.extend(flags)
        if not letter:
            continue
        value = value or (rest.pop(0) if rest else "")
        if letter in _WITH_VALUE:
            options.extend([f"-{letter}", value])
            continue
        return options, "module" if letter == "m" else "inline", [value, *rest]
    return options, "interactive", []


def _split_flags(argument: str) -> tuple[list[str], str, str]:
    """Split flags like `-OuXdev`: those without a value, the letter with one, the value."""
    for place, letter in enumerate(argument[1:], start=1):
        if letter in _WITH_VALUE or letter in "mc":
            flags = [f"-{argument[1:place]}"] if place > 1 else []
            return flags, letter, argument[place + 1 :]
    return [argument], "", ""


def _script(given: str) -> str:
    """Return the script relative to the current folder, which is no fact of this host."""
    path = entry_point()
    try:
        return os.path.relpath(path or given)
    except (OSError, ValueError):
        return given


def shell() -> object | None:
    """Return the IPython shell that runs this code, if one does."""
    module = sys.modules.get("IPython")
    get_shell = getattr(module, "get_ipython", None)
    return get_shell() if callable(get_shell) else None


def _notebook() -> bool:
    return shell() is not None and "ipykernel" in sys.modules


def notebook_file() -> Path | None:
    """Return the notebook's file where its server or editor tells it."""
    main = sys.modules.get("__main__")
    told = getattr(main, "__vsc_ipynb_file__", None) or os.environ.get("JPY_SESSION_NAME")
    if not _notebook() or not isinstance(told, str):
        return None
    path = Path(os.path.abspath(told))
    return path if path.is_file() else None
