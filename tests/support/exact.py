"""Equality as a state promises it: exact types, exact bits, exact order, and the same ties."""

import struct
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any


def same(left: Any, right: Any) -> bool:
    """Return whether two values cannot be told apart, NaN payloads and signs of zero included."""
    if type(left) is not type(right):
        return False
    for kind, compare in _COMPARED.items():
        if isinstance(left, kind):
            return compare(left, right)
    if "numpy" in sys.modules and _is_numpy(left):
        return left.dtype.str == right.dtype.str and _array_bits(left) == _array_bits(right)
    if "torch" in sys.modules and isinstance(left, sys.modules["torch"].Tensor):
        return _same_tensors(left, right)
    return bool(left == right)


def _bits(number: float) -> bytes:
    return struct.pack("<d", number)


def _same_dicts(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    if isinstance(left, OrderedDict | Counter) and not same(vars(left), vars(right)):
        return False
    return same(list(left), list(right)) and same(list(left.values()), list(right.values()))


def _same_items(left: Any, right: Any) -> bool:
    return len(left) == len(right) and all(map(same, left, right))


def _same_complex(left: complex, right: complex) -> bool:
    return _bits(left.real) == _bits(right.real) and _bits(left.imag) == _bits(right.imag)


_COMPARED: dict[Any, Callable[[Any, Any], bool]] = {
    float: lambda left, right: _bits(left) == _bits(right),
    complex: _same_complex,
    dict: _same_dicts,
    (list, tuple): _same_items,
}


def _is_numpy(value: Any) -> bool:
    np = sys.modules["numpy"]
    return isinstance(value, np.ndarray | np.generic)


def _array_bits(array: Any) -> tuple[Any, bytes]:
    return array.shape, array.tobytes()


def _same_tensors(left: Any, right: Any) -> bool:
    # Bit by bit, with nothing of the code under test.
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and tensor_bits(left) == tensor_bits(right)
    )


def tensor_bits(tensor: Any) -> list[bytes]:
    """Return each element's bytes, in row-major order, read one by one."""
    torch = sys.modules["torch"]
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    elements = [plain]
    for _ in range(plain.dim()):
        elements = [part for element in elements for part in element.unbind()]
    return [bytes(one.reshape(1).view(torch.uint8).tolist()) for one in elements]
