"""From a dtype to what its compression goes by."""

from cas.codec.element import Element
from cas.objects.manifest import DTYPES


def element_of(dtype: str) -> Element:
    """Return the number that data of this dtype is made of: a complex element holds two."""
    width = DTYPES[dtype] // 2 if dtype.startswith("complex") else DTYPES[dtype]
    return Element(width, floating=dtype.startswith(("float", "bfloat", "complex")))
