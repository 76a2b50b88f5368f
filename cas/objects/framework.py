"""The framework seam: how a library of tensors tells its values to the grammar of states.

Knows no framework. NumPy stands in `arrays.py`, torch in `cas/integrations/torch.py`.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from cas.objects.canonical import Value
from cas.objects.manifest import DTYPES, TensorRow

Memory = bytearray | memoryview  # writable bytes that a tensor is made over


@dataclass(frozen=True, slots=True)
class TensorView:
    """A look at one tensor; nothing is copied until `buffer` is called.

    `buffer` returns the row-major, little-endian bytes as a flat view of bytes, which is the
    tensor's own memory where that lies so already, and which keeps that memory alive. Two views
    have the same `identity` exactly when they are the same tensor: memory, offset, shape, strides,
    dtype. `extra` is what the framework needs besides the row, to make the same value again.
    `fill`, where there is one, writes these bytes straight into memory of their size; what it
    returns, if anything, waits until they are there: a device may still be at work on the copy.
    `address`, where it is known, is where just these bytes lie while the tensor is kept.
    """

    dtype: str
    shape: tuple[int, ...]
    identity: Hashable
    buffer: Callable[[], memoryview]
    extra: tuple[str, ...] = ()
    fill: "Callable[[memoryview], Callable[[], object] | None] | None" = None
    address: int | None = None

    @property
    def nbytes(self) -> int:
        """The size of the tensor's data; raises KeyError for a dtype that has no row."""
        return prod(self.shape) * DTYPES[self.dtype]


class Framework(Protocol):
    """A library whose values a state may hold.

    Every framework promises:

    - it takes values of exactly its own types, no subclasses, and answers None for all others;
    - `decode(*encode(value))` is the value, and `tensor` over a view's bytes is the tensor, bit
      for bit;
    - arguments that `encode` would never write are CorruptionError.
    """

    @property
    def tensor_tag(self) -> str:
        """The tag under which the grammar refers to its tensors."""

    @property
    def tags(self) -> frozenset[str]:
        """The tags that `decode` takes."""

    def view(self, value: object) -> TensorView | None:
        """Return a look at the tensor `value`; None when it is none that can be stored."""

    def encode(self, value: object) -> list[Value] | None:
        """Return another value of this framework as a tagged array, or None."""

    def explain(self, value: object) -> str | None:
        """Return why a value of this framework cannot be stored; None when it is not its own."""

    def decode(self, tag: str, args: Sequence[Value]) -> object:
        """Return the value that stands under `tag`."""

    def tensor(self, row: TensorRow, data: Memory, extra: tuple[str, ...]) -> object:
        """Return the tensor of `row`, which takes over the memory of `data`."""
