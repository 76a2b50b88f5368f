"""NumPy's arrays and scalars in a state.

NumPy is imported only when a value may be one of its own, which takes that it is loaded already,
or when an array must be made.

Format: docs/format/state.md.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from cas.errors import CorruptionError, UnsupportedError
from cas.objects.canonical import Value
from cas.objects.framework import Memory, TensorView
from cas.objects.manifest import DTYPES, TensorRow
from cas.plain import human_bytes

if TYPE_CHECKING:
    from numpy import dtype, ndarray

    DType: TypeAlias = dtype[Any]
    Array: TypeAlias = ndarray[Any, DType]

# What NumPy and the table of dtypes both know, under the name that both use.
NAMES = frozenset(
    {"bool", "float16", "float32", "float64", "complex64", "complex128"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
SCALAR = "numpy"
BIG_ENDIAN: Final = ">"


def memory(nbytes: int) -> Memory:
    """Return writable bytes of any content: to fill a bytearray with zeros first takes longer.

    Raises UnsupportedError when there is no room for them.
    """
    import numpy as np

    try:
        return np.empty(nbytes, np.uint8).data
    except (MemoryError, ValueError) as error:  # the latter for what no address is long enough for
        raise UnsupportedError(
            f"{human_bytes(nbytes)} in one piece do not fit into memory: `cas.open_file` and "
            "`cas cat --tensor` read a part at a time"
        ) from error


class NumpyFramework:
    """Arrays and scalars of exactly NumPy's own types."""

    tensor_tag = "ndarray"
    tags = frozenset({SCALAR})

    def view(self, value: object) -> TensorView | None:
        """Return a look at an array; None for what is none, or has no row in the table."""
        np = sys.modules.get("numpy")
        if np is None or type(value) is not np.ndarray:
            return None
        array = cast("Array", value)
        dtype = array.dtype
        if not _is_plain(dtype):
            return None
        # Memory of no size has no address of its own: two empty arrays are one only by identity.
        address = array.__array_interface__["data"][0] if array.size else None
        lies_flat = array.flags.c_contiguous and dtype.newbyteorder("<") == dtype
        return TensorView(
            dtype=dtype.name,
            shape=array.shape,
            identity=(address or ("empty", id(array)), array.shape, array.strides, dtype.str),
            buffer=lambda: _little_endian(array),
            extra=(BIG_ENDIAN,) if dtype.str[0] == BIG_ENDIAN else (),
            address=address if lies_flat else None,
        )

    def encode(self, value: object) -> list[Value] | None:
        """Return a scalar as its dtype and bytes, or None."""
        np = sys.modules.get("numpy")
        if np is None or not isinstance(value, np.generic):
            return None
        # Where C has two types of one size (`long` and `longlong`), NumPy prints both under one
        # name and calls their dtypes equal: that name is what is stored.
        dtype = value.dtype
        if not _is_plain(dtype) or type(value) is not dtype.type:
            return None
        return [SCALAR, dtype.name, bytes(_little_endian(np.asarray(value)))]

    def explain(self, value: object) -> str | None:
        """Return why a value of NumPy cannot be stored; None when it is not NumPy's."""
        np = sys.modules.get("numpy")
        if np is None or not isinstance(value, np.ndarray | np.generic | np.dtype):
            return None
        if isinstance(value, np.dtype):
            return "a NumPy dtype: store its name"
        if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
            return f"{type(value).__name__} is a subclass of numpy.ndarray: store np.array(value)"
        if isinstance(value, np.generic) and type(value) is not value.dtype.type:
            return f"{type(value).__name__} is a subclass of a NumPy scalar: store that"
        return f"NumPy's dtype {value.dtype} has no portable form: convert it first"

    def decode(self, tag: str, args: Sequence[Value]) -> object:
        """Return the scalar that stands under `tag`."""
        import numpy as np

        if len(args) != 2:
            raise CorruptionError(f"state: {tag} has {len(args)} arguments, not 2")
        name, data = args
        if not isinstance(name, str) or name not in NAMES:
            raise CorruptionError(f"state: {tag} has no dtype {name!r}")
        if not isinstance(data, bytes) or len(data) != DTYPES[name]:
            raise CorruptionError(f"state: {tag} does not hold one {name}")
        return np.frombuffer(data, np.dtype(name).newbyteorder("<")).astype(name)[0]

    def tensor(self, row: TensorRow, data: Memory, extra: tuple[str, ...]) -> object:
        """Return the array of `row` in the byte order that it had."""
        import numpy as np

        if row.dtype not in NAMES or extra not in {(), (BIG_ENDIAN,)}:
            raise CorruptionError(f"state: {row.label} is not an array of NumPy")
        dtype = np.dtype(row.dtype)
        try:
            array = np.frombuffer(data, dtype.newbyteorder("<")).reshape(row.shape)
        except ValueError as error:
            raise CorruptionError(f"state: {row.label} has no array: {error}") from error
        # In place, over memory that is this array's alone.
        if extra:
            return array.byteswap(inplace=True).view(dtype.newbyteorder(BIG_ENDIAN))
        return array if sys.byteorder == "little" else array.byteswap(inplace=True).view(dtype)


NUMPY = NumpyFramework()


def _is_plain(dtype: "DType") -> bool:
    import numpy as np

    # Metadata on a dtype would be lost without a word.
    return (
        dtype.name in NAMES
        and dtype.newbyteorder("=") == np.dtype(dtype.name)
        and dtype.metadata is None
    )


def _little_endian(array: "Array") -> memoryview:
    """Return the row-major, little-endian bytes: the array's own memory where it lies so."""
    import numpy as np

    if array.dtype.newbyteorder("<") != array.dtype:
        array = array.byteswap()  # swaps bits without looking at them; a cast may touch NaNs
    flat = array if array.flags.c_contiguous else array.copy(order="C")
    return flat.reshape(-1).view(np.uint8).data
