"""A small transformer on real text: bytes of the standard library's own sources.

A SwiGLU network and no ReLU: dead units would keep their values and flatter every delta.
"""

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

SKIPPED = {"site-packages", "test", "tests", "__pycache__", "idlelib"}


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the network is, and what one step sees."""

    width: int = 256
    layers: int = 8
    heads: int = 4
    length: int = 64
    batch: int = 12


def corpus() -> bytes:
    """Return the sources of the standard library, in the order of their paths."""
    top = Path(sysconfig.get_paths()["stdlib"])
    files = (path for path in top.rglob("*.py") if not SKIPPED & set(path.parts))
    return b"\n".join(path.read_bytes() for path in sorted(files))


def digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        hidden = shape.width * 8 // 3
        self.norm1, self.norm2 = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.gate = nn.Linear(shape.width, hidden, bias=False)
        self.up = nn.Linear(shape.width, hidden, bias=False)
        self.down = nn.Linear(hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, length, width))
        inner = self.norm2(x)
        result: Tensor = x + self.down(F.silu(self.gate(inner)) * self.up(inner))
        return result


class Network(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(256, shape.width)
        self.position = nn.Parameter(torch.randn(shape.length, shape.width) * 0.02)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, 256, bias=False)
        for name, value in self.named_parameters():
            if value.dim() == 2:
                nn.init.normal_(value, std=0.02 if "embed" in name else value.shape[1] ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(self.norm(x))
        return result


def batches(text: bytes, shape: Shape, seed: int) -> Iterator[Tensor]:
    """Yield random windows of the text without end."""
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    source = torch.Generator().manual_seed(seed)
    window = torch.arange(shape.length + 1)
    while True:
        starts = torch.randint(len(data) - shape.length - 1, (shape.batch, 1), generator=source)
        yield data[starts + window].long()


def step(network: Network, optimizer: torch.optim.Optimizer, batch: Tensor) -> float:
    """Train on one batch; return the loss."""
    optimizer.zero_grad()
    guess = network(batch[:, :-1])
    loss = F.cross_entropy(guess.reshape(-1, 256), batch[:, 1:].reshape(-1))
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return loss.item()
