"""Finding the frameworks whose values a state may hold.

A framework's adapter is loaded by name, and only when the framework itself has been imported by
the user's program or when a stored value asks for it: the core imports none of them.
"""

import sys
from importlib import import_module
from typing import Any, Final

from cas.errors import UnsupportedError
from cas.objects.arrays import memory
from cas.objects.framework import Memory
from cas.objects.manifest import State
from cas.objects.pystate import tags

ADAPTERS: Final = {"torch": "cas.integrations.torch"}
SHARDING: Final = "cas.integrations.shards"


def module(name: str) -> Any:
    """Return the adapter module of one framework; raises ImportError when it is not installed."""
    return import_module(ADAPTERS[name])


def sharding() -> Any:
    """Return the module for state that lies over several processes; raise UnsupportedError."""
    try:
        return import_module(SHARDING)
    except ImportError as error:
        raise UnsupportedError(
            f"sharded checkpoints need torch.distributed.checkpoint: {error}"
        ) from error


def loaded() -> list[Any]:
    """Return the adapter modules of the frameworks that this program has imported."""
    return [module(name) for name in ADAPTERS if sys.modules.get(name) is not None]


def adapters() -> list[Any]:
    """Return one adapter for each framework that this program has imported."""
    return [found.ADAPTER for found in loaded()]


def processes() -> tuple[int, int] | None:
    """Return this process's number in a group that its program has made, and the size of that."""
    made = (found.processes() for found in loaded())
    return next((one for one in made if one is not None), None)


def staging(nbytes: int) -> Memory:
    """Return writable bytes of any content to copy tensors into; raise MemoryError."""
    for found in loaded():
        pinned: Memory | None = found.staging(nbytes)
        if pinned is not None:
            return pinned
    try:
        return memory(nbytes)
    except UnsupportedError as error:
        raise MemoryError(str(error)) from error


def needed(state: State) -> list[Any]:
    """Return the adapters for reading a state: those loaded, and those that its tags ask for."""
    found = tags(state.value)
    asked = [
        name
        for name in ADAPTERS
        if name in sys.modules
        or any(tag == "tensor" or tag.startswith(f"{name}.") for tag in found)
    ]
    try:
        return [module(name).ADAPTER for name in asked]
    except ImportError as error:
        raise UnsupportedError(
            f"this state needs {error.name}, which is not installed: pip install it"
        ) from error
