"""torch: its tensors and small values in a state, its random numbers, flags and versions.

The only home of torch. It is imported when torch is loaded already, or when a tensor must be made.

Format: docs/format/state.md.
"""

import sys
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from cas.errors import CorruptionError, UnsupportedError
from cas.objects.canonical import Value
from cas.objects.framework import Memory, TensorView
from cas.objects.manifest import DTYPES, MAX_LENGTH, TensorRow
from cas.tracking.media.histogram import Histogram, ends

SIZE = "torch.Size"
DTYPE = "torch.dtype"
DEVICE = "torch.device"
PREFIX = "torch."

# Every dtype of the table that this torch has.
_DTYPES: dict[str, torch.dtype] = {
    name: dtype for name in DTYPES if isinstance(dtype := getattr(torch, name, None), torch.dtype)
}
_has_names = getattr(torch.Tensor, "has_names", lambda _: False)  # newer versions know no names
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# Bytes are copied as integers of the same size: that touches no NaN, and works for the dtypes that
# have no kernels of their own.
_CARRIERS = {
    1: torch.uint8,
    2: torch.int16,
    4: torch.int32,
    8: torch.int64,
    16: torch.complex128,
}


class TorchFramework:
    """Tensors of exactly type torch.Tensor, and torch.Size, dtype and device.

    Device, requires_grad and memory format are not stored: tensors come back on the CPU.
    """

    tensor_tag = "tensor"
    tags = frozenset({SIZE, DTYPE, DEVICE})

    def view(self, value: object) -> TensorView | None:
        """Return a look at a dense tensor with data; None for everything else."""
        if type(value) is not torch.Tensor or _hindrance(value) is not None:
            return None
        lies_flat = _lies_flat(value)
        return TensorView(
            dtype=_NAMES[value.dtype],
            shape=tuple(value.shape),
            identity=_identity(value),
            buffer=partial(_bytes, value),
            fill=None if lies_flat else partial(_copy, value),
            address=value.data_ptr() if lies_flat else None,
        )

    def encode(self, value: object) -> list[Value] | None:
        """Return a size, dtype or device as a tagged array, or None."""
        if type(value) is torch.Size and _is_size(value):
            return [SIZE, *value]
        if type(value) is torch.dtype:
            return [DTYPE, str(value).removeprefix(PREFIX)]
        if type(value) is torch.device:
            return [DEVICE, str(value)]
        return None

    def explain(self, value: object) -> str | None:
        """Return why a value of torch cannot be stored; None when it is not torch's."""
        if type(value) is torch.Tensor:
            return _hindrance(value)
        if isinstance(value, torch.nn.Parameter):
            return "a Parameter: store the module's state_dict(), or the Parameter's detach()"
        if isinstance(value, torch.Tensor):
            return f"{type(value).__name__} is a subclass of torch.Tensor: store a plain tensor"
        if isinstance(value, torch.nn.Module):
            return f"{type(value).__name__} is a module: store its state_dict()"
        if isinstance(value, torch.Generator):
            return "a generator: store its get_state()"
        return None

    def decode(self, tag: str, args: Sequence[Value]) -> object:
        """Return the size, dtype or device that stands under `tag`."""
        if tag == SIZE:
            if not _is_size(args):
                raise CorruptionError(f"state: {tag} holds something else than lengths")
            return torch.Size(args)  # type: ignore[arg-type]  # ints, as was just checked
        name = args[0] if len(args) == 1 else None
        if not isinstance(name, str):
            raise CorruptionError(f"state: {tag} does not hold one name")
        return _dtype(name) if tag == DTYPE else _device(name)

    def tensor(self, row: TensorRow, data: Memory, extra: tuple[str, ...]) -> object:
        """Return the tensor of `row`, on the CPU, over the memory of `data`."""
        _expect_little_endian()
        if extra:
            raise CorruptionError(f"state: tensor {row.label} has arguments: {extra!r}")
        dtype = _DTYPES.get(row.dtype)
        if dtype is None:
            raise UnsupportedError(
                f"tensor {row.label} has dtype {row.dtype}, which torch {torch.__version__} lacks"
            )
        try:
            memory = torch.frombuffer(data, dtype=torch.uint8) if data else _nothing()
            return memory.view(dtype).reshape(row.shape)
        except (RuntimeError, ValueError, OverflowError) as error:
            raise CorruptionError(f"state: no tensor {row.label}: {error}") from error


NAME = "torch"
ADAPTER = TorchFramework()


def rng_state() -> dict[str, object]:
    """Return the states of the generators of the CPU and, once CUDA is in use, of its devices."""
    state: dict[str, object] = {"cpu": torch.get_rng_state()}
    cuda: Any = torch.cuda
    if cuda.is_available() and cuda.is_initialized():
        state["cuda"] = list(cuda.get_rng_state_all())
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Set the generators to what `rng_state` returned; devices that are not here are left out."""
    torch.set_rng_state(state["cpu"])
    for device, one in enumerate(state.get("cuda", ())):
        if device < torch.cuda.device_count():
            torch.cuda.set_rng_state(one, device)


def set_seeds(seed: int) -> None:
    """Seed the generators of all devices, also of those that are not in use yet."""
    torch.manual_seed(seed)


def determinism() -> dict[str, object]:
    """Return the settings on which it depends whether two equal runs give equal numbers."""
    readings: dict[str, Callable[[], object]] = {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled,
        "cudnn_enabled": lambda: torch.backends.cudnn.enabled,
        "cudnn_benchmark": lambda: torch.backends.cudnn.benchmark,
        "cudnn_deterministic": lambda: torch.backends.cudnn.deterministic,
        "cudnn_allow_tf32": lambda: torch.backends.cudnn.allow_tf32,
        "matmul_allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision,
        "default_dtype": lambda: str(torch.get_default_dtype()).removeprefix(PREFIX),
        "num_threads": torch.get_num_threads,
        "num_interop_threads": torch.get_num_interop_threads,
    }
    return {name: _reading(read) for name, read in readings.items()}


def make_deterministic(threads: int | None, *, warn_only: bool, in_time: bool) -> list[str]:
    """Ask for algorithms that always give the same numbers; return what that does not reach.

    `in_time` says whether cuBLAS had its setting before this program began.
    """
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.set_float32_matmul_precision("highest")
    if threads is not None:
        torch.set_num_threads(threads)
    cuda: Any = torch.cuda
    if cuda.is_available() and cuda.is_initialized() and not in_time:
        return [
            "CUDA was in use before CUBLAS_WORKSPACE_CONFIG was set: "
            "start with CUBLAS_WORKSPACE_CONFIG=:4096:8"
        ]
    return []


def norms(tensors: Sequence[torch.Tensor]) -> list[float]:
    """Return the Euclidean norm of each tensor, with one wait for the device."""
    if not tensors:
        return []
    found = [torch.linalg.vector_norm(_measured(tensor)) for tensor in tensors]
    device = found[0].device
    return torch.stack([norm.to(device, torch.float32) for norm in found]).tolist()


def counted(tensor: torch.Tensor, bins: int = 64) -> Histogram:
    """Return the histogram of a tensor, counted where it lies."""
    flat = _measured(tensor).reshape(-1)
    flat = flat.abs() if flat.is_complex() else flat
    finite = torch.isfinite(flat)
    nan = int(torch.isnan(flat).sum())
    inf = int(flat.numel() - finite.sum()) - nan
    flat = flat[finite] if nan or inf else flat
    low, high = (float(flat.min()), float(flat.max())) if flat.numel() else (0.0, 1.0)
    low, high = ends(low, high, bins, torch.finfo(flat.dtype).eps)
    counts = torch.histc(flat, bins, low, high).to(torch.int64).cpu().numpy()
    return Histogram(counts, np.linspace(low, high, bins + 1), nan, inf)


def _measured(tensor: torch.Tensor) -> torch.Tensor:
    """Return the numbers of a tensor in a form that can be counted and added up."""
    plain = tensor.detach()
    plain = plain.coalesce().values() if plain.is_sparse else plain
    return plain if plain.dtype.itemsize >= 4 else plain.to(torch.float32)


def versions() -> dict[str, object]:
    """Return the versions of torch and of what it was built with; leaves CUDA asleep."""
    found = {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": _reading(torch.backends.cudnn.version),
    }
    return {name: version for name, version in found.items() if version is not None}


def _hindrance(tensor: torch.Tensor) -> str | None:
    """Return why a tensor cannot be stored, if it cannot."""
    if _is_dense(tensor):  # nearly all are; a loop waits while thousands are looked at
        return None
    layout, dtype = (str(word).removeprefix(PREFIX) for word in (tensor.layout, tensor.dtype))
    reasons = {
        "a nested tensor: store its unbind()": tensor.is_nested,
        "a quantized tensor: store int_repr() with its scales and zero points": tensor.is_quantized,
        f"a tensor of layout {layout}: store to_dense(), or its indices and values": (
            tensor.layout is not torch.strided
        ),
        "a tensor on the meta device has no data": tensor.is_meta,
        "a tensor with named dimensions: store rename(None)": (
            any(name is not None for name in getattr(tensor, "names", ()))
        ),
        f"dtype {dtype} has no portable form": tensor.dtype not in _NAMES,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is made of numbers in memory, and of nothing else."""
    return (
        tensor.dtype in _NAMES  # the dtypes of quantized ones are not
        and tensor.layout is torch.strided
        and not (tensor.is_nested or tensor.is_meta)
        and not _has_names(tensor)
    )


def _is_size(lengths: Sequence[object]) -> bool:
    """Return whether all are ints that torch can count with: torch.Size itself takes any."""
    return all(type(length) is int and -MAX_LENGTH <= length <= MAX_LENGTH for length in lengths)


def _lies_flat(tensor: torch.Tensor) -> bool:
    """Return whether its bytes lie in memory as they are stored."""
    return (
        tensor.is_cpu
        and tensor.is_contiguous()
        and not (tensor.is_conj() or tensor.is_neg())
        and sys.byteorder == "little"
    )


def _identity(tensor: torch.Tensor) -> Hashable:
    memory = tensor.untyped_storage().data_ptr()
    return (
        # Memory of no size, and that of some devices, has no address to tell tensors apart by.
        memory or ("no address", id(tensor)),
        tensor.device,
        tensor.storage_offset(),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.dtype,
        tensor.is_conj(),
        tensor.is_neg(),
    )


def _bytes(tensor: torch.Tensor) -> memoryview:
    """Return the row-major bytes: the tensor's own memory where it lies so on the CPU."""
    _expect_little_endian()
    plain = tensor.detach().resolve_conj().resolve_neg()
    carried = plain.view(_CARRIERS[plain.dtype.itemsize]).cpu().contiguous()
    # A dimension of length one may have any stride and still count as contiguous.
    flat = carried.as_strided((carried.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def _copy(tensor: torch.Tensor, target: memoryview) -> Callable[[], object] | None:
    """Write the row-major bytes into `target`; return what waits for a device that copies them."""
    _expect_little_endian()
    if not tensor.numel():
        return None
    plain = tensor.detach().resolve_conj().resolve_neg()
    carried = plain.view(_CARRIERS[plain.dtype.itemsize])
    memory = torch.frombuffer(target, dtype=torch.uint8).view(carried.dtype)
    # On the stream that the loop computes on: behind the step that is under way, before the next.
    memory.reshape(carried.shape).copy_(carried, non_blocking=carried.is_cuda)
    return torch.cuda.current_stream(carried.device).synchronize if carried.is_cuda else None


def staging(nbytes: int) -> Memory | None:
    """Return memory that devices copy into at full speed; None where no device is in use."""
    cuda: Any = torch.cuda
    if not (cuda.is_available() and cuda.is_initialized()):
        return None
    try:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data
    except RuntimeError:  # less can be pinned than there is: other memory is slower, but does
        return None


def moved(value: Any, device: Any) -> Any:
    """Return nested state with its tensors on a device; one tensor under many names stays one.

    `device` is what `torch.device` takes, or a map of such by those that the tensors are on now.
    """
    known: dict[int, torch.Tensor] = {}

    def move(item: Any) -> Any:
        if type(item) is torch.Tensor:
            return known.setdefault(id(item), _to(item, device))
        if type(item) in {list, tuple}:
            return type(item)(map(move, item))
        if isinstance(item, dict):
            for key in item:
                item[key] = move(item[key])
        return item

    return move(value)


def _to(tensor: torch.Tensor, device: Any) -> torch.Tensor:
    where = device.get(str(tensor.device)) if isinstance(device, Mapping) else device
    return tensor if where is None else tensor.to(where)


def allocated() -> dict[str, float]:
    """Return what torch's allocator holds of each GPU that it works on, as system metrics."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    found: dict[str, float] = {}
    for number in range(torch.cuda.device_count()):
        name = f"gpu_{number}_allocator"
        found[f"{name}_bytes"] = float(torch.cuda.memory_allocated(number))
        found[f"{name}_reserved_bytes"] = float(torch.cuda.memory_reserved(number))
    return found


def _nothing() -> torch.Tensor:
    """Return no bytes: torch makes no tensor over a buffer without any."""
    return torch.empty(0, dtype=torch.uint8, device="cpu")


def processes() -> tuple[int, int] | None:
    """Return rank and size of the process group that the program has made; None without one."""
    spread = torch.distributed
    if not (spread.is_available() and spread.is_initialized()):
        return None
    return spread.get_rank(), spread.get_world_size()


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UnsupportedError(f"torch {torch.__version__} has no dtype {name!r}")
    return dtype


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UnsupportedError(f"torch {torch.__version__} has no device {name!r}") from error


def _reading(read: Callable[[], object]) -> object:
    """Return a setting, or None where this torch does not tell it."""
    try:
        # Some versions remark that a name is old. Other threads see these filters too, which is
        # why nothing else here, where tensors are read behind a training loop, touches them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (RuntimeError, AttributeError):
        # Asking for TF32 in the old way is an error once a program has set it in the new one.
        return None


def _expect_little_endian() -> None:
    if sys.byteorder != "little":
        raise UnsupportedError("tensors of torch are stored and read on little-endian hosts only")
