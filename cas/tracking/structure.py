"""The structure of a model: what it is made of, without its weights.

Models of torch tell of their modules; of any other what it says of itself.
"""

from collections.abc import Mapping
from typing import Any, Final

MAX_MODULES: Final = 10_000
MAX_TEXT: Final = 10_000


def structure(model: object) -> dict[str, Any]:
    """Return a model's structure as plain data: class, modules, parameters and how many numbers.

    Of a module: its name, class, what it says of itself, and the names, shapes and dtypes of the
    parameters and buffers that are its own.
    """
    found: dict[str, Any] = {"class": _class(model)}
    given: Any = model
    if callable(getattr(model, "named_modules", None)):
        modules = list(given.named_modules())
        found["modules"] = [_module(name, module) for name, module in modules[:MAX_MODULES]]
        found["modules_left_out"] = max(0, len(modules) - MAX_MODULES)
        parameters = dict(given.named_parameters())
        found["parameters"] = sum(one.numel() for one in parameters.values())
        found["trainable"] = sum(one.numel() for one in parameters.values() if one.requires_grad)
    elif callable(getattr(model, "get_params", None)):
        found["params"] = {name: _told(value) for name, value in given.get_params().items()}
    elif isinstance(model, Mapping):
        found["tensors"] = {
            str(name): _tensor(value) for name, value in model.items() if hasattr(value, "shape")
        }
    else:
        found["told"] = _told(model)
    config = getattr(model, "config", None)
    to_dict = getattr(config, "to_dict", None)
    if callable(to_dict):
        found["config"] = to_dict()
    return found


def _module(name: str, module: Any) -> dict[str, Any]:
    own = {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
    told = {"name": name, "class": _class(module)}
    extra = module.extra_repr() if callable(getattr(module, "extra_repr", None)) else ""
    if extra:
        told["told"] = str(extra)[:MAX_TEXT]
    return {**told, "tensors": {key: _tensor(value) for key, value in own.items()}}


def _tensor(value: Any) -> dict[str, Any]:
    told = {
        "shape": [int(length) for length in value.shape],
        "dtype": str(getattr(value, "dtype", "")).rpartition(".")[2],
    }
    return told | ({"trainable": True} if getattr(value, "requires_grad", False) else {})


def _class(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _told(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return repr(value)[:MAX_TEXT]
