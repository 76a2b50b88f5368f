"""What was measured, and the tables that say it: ratios first, then what they come from."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Usage, middle

MIB = 1 << 20
Bars = tuple[float | None, float | None]
NO_BARS: Bars = (None, None)


@dataclass(frozen=True, slots=True)
class Sample:
    """One action of one tool on one workload, in one round."""

    workload: str
    tool: str
    action: str
    round: int
    usage: Usage
    given: int  # bytes that were given to the store so far
    stored: int = 0  # size of the store behind it, 0 where it stores nothing
    durability: str = ""
    moved: int = 0  # bytes that this action was about
    most: int = 0  # the largest size of the store that was seen meanwhile


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table of ratios; without values it could not be had, and `note` says why."""

    row: str
    workload: str
    against: str
    values: tuple[float, ...] = ()
    bars: Bars = NO_BARS  # floor and goal
    more: bool = False  # more is better
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return how the median stands to floor and goal."""
        if not self.values:
            return "not run"
        floor, goal = self.bars
        if floor is None or goal is None:
            return ""
        value = middle(self.values)[1]
        reached = [value >= bar if self.more else value <= bar for bar in (floor, goal)]
        return {0: "**below the floor**", 1: "floor", 2: "goal"}[sum(reached)]


@dataclass(slots=True)
class Results:
    """Everything that a run of the benchmarks found out."""

    about: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def write(self, folder: Path, stem: str) -> tuple[Path, Path]:
        """Write the tables and the raw figures; return where."""
        folder.mkdir(parents=True, exist_ok=True)
        table, raw = folder / f"{stem}.md", folder / f"{stem}.json"
        table.write_text(self.markdown())
        raw.write_text(json.dumps(asdict(self), indent=1))
        return table, raw

    def markdown(self) -> str:
        parts = [_about(self.about), ratios(self.figures), side_by_side(self.samples)]
        return "\n\n".join(part for part in parts if part) + "\n"


def ratios(figures: Iterable[Figure]) -> str:
    """Return the table of ratios: the median, its spread, and whether it reaches floor and goal."""
    lines = [
        "| workload | against | median | lowest to highest | floor | goal | reached | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in figures:
        low, mid, high = middle(one.values) if one.values else (None, None, None)
        spread = f"{_number(low)} to {_number(high)}" if len(one.values) > 1 else ""
        cells = (one.workload, one.against, _number(mid), spread)
        judged = (*map(_number, one.bars), one.verdict, one.note)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells + judged) + " |")
    return "## Ratios\n\n" + "\n".join(lines)


def side_by_side(samples: Sequence[Sample]) -> str:
    """Return one table of seconds, CPU seconds, memory and size for each workload."""
    groups: dict[str, dict[tuple[str, str], list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        groups[sample.workload][sample.action, sample.tool].append(sample)
    parts = []
    for workload, rows in groups.items():
        lines = [
            "| action | tool | wall s | lowest to highest | CPU s | MB/s | peak MiB"
            " | stored / given so far | durability |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(action, tool, found) for (action, tool), found in rows.items()]
        parts.append(f"### {workload}\n\n" + "\n".join(lines))
    return "## Side by side\n\n" + "\n\n".join(parts) if parts else ""


def _row(action: str, tool: str, found: Sequence[Sample]) -> str:
    low, wall, high = middle(one.usage.wall for one in found)
    cpu, peak = (
        middle(one.usage.cpu for one in found)[1],
        middle(one.usage.peak for one in found)[1],
    )
    one = found[0]
    stored = f"{one.stored / one.given:.4f}" if one.stored and one.given else ""
    cells = (
        action,
        tool,
        f"{wall:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{cpu:.3f}",
        f"{one.moved / wall / 1e6:.0f}" if one.moved else "",
        f"{peak / MIB:.0f}" if peak else "",
        stored,
        one.durability,
    )
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _about(about: Mapping[str, Any]) -> str:
    lines = [
        f"- {key}: {json.dumps(value) if isinstance(value, dict) else value}"
        for key, value in about.items()
    ]
    return "# Benchmark results\n\n" + "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.5f}" if abs(value) < 0.1 else f"{value:.4f}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
