"""What `cas diff` prints: a section for each kind of difference that there is."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from shlex import join
from typing import TYPE_CHECKING, Any, Final

from . import render
from .exits import printable
from .session import Session

if TYPE_CHECKING:
    from cas.lineage.compare import Comparison, FileChange, Input, InputChange
    from cas.lineage.curves import MetricChange, Parting
    from cas.lineage.logged import LoggedChange
    from cas.lineage.patch import FilePatch
    from cas.lineage.values import ValueChange
    from cas.lineage.weights import TensorChange, Weights

PATCH_LINES: Final = 60
ROWS: Final = 40
TENSORS: Final = 20
STEPS: Final = 5
VALUE: Final = 60
VALUES: Final = ("params", "packages", "environment", "command", "seeds")
MARKS: Final = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
NOTHING: Final = "nothing that is compared differs"


def lines(session: Session, found: "Comparison") -> Iterator[str]:
    """Yield a comparison for people."""
    yield _heading(session, found)
    if found.same:
        yield NOTHING
    yield from _values(session, "params", found.params)
    yield from _section(session, "metrics", [_metric(change) for change in found.metrics])
    yield from _section(session, "logged", [_logged(session, change) for change in found.logged])
    yield from _code(session, found)
    for name in VALUES[1:]:
        yield from _values(session, name, getattr(found, name))
    yield from _section(session, "inputs", [_input(session, one) for one in found.inputs])
    for name in ("artifacts", "files"):
        yield from _section(session, name, [_file(session, one) for one in getattr(found, name)])
    if found.weights is not None:
        yield from _weights(session, found.weights)
    for note in found.notes:
        yield ""
        yield session.paint(f"note: {note}", fg="yellow")


def stat(session: Session, found: "Comparison") -> Iterator[str]:
    """Yield one line for each kind of difference."""
    yield _heading(session, found)
    rows: list[tuple[str, str]] = []
    for name in (*VALUES, "logged", "inputs", "artifacts", "files"):
        counts = Counter(change.how for change in getattr(found, name))
        rows.append((name, ", ".join(f"{counts[how]} {how}" for how in MARKS if counts[how])))
    metrics = [change.name for change in found.metrics]
    rows.append(("metrics", f"{len(metrics)} differ: {', '.join(metrics)}" if metrics else ""))
    rows.append(("code", _patch_size(found.code)))
    if found.weights is not None:
        rows.append(("weights", _counts(found.weights)))
    kept = [(printable(name), printable(text)) for name, text in rows if text]
    yield from render.table(kept) if kept and not found.same else [NOTHING]
    yield from (f"note: {note}" for note in found.notes)


def patch(session: Session, files: "Iterable[FilePatch]", *, raw: bool = False) -> Iterator[str]:
    """Yield the patch of the code; `raw` for a program that applies it."""
    for file in files:
        for line in file.lines:
            yield line if raw else _coloured(session, line)
        if not file.lines:
            yield f"{printable(file.path)} {file.how}: {file.note or 'empty'}"


def _heading(session: Session, found: "Comparison") -> str:
    sides = [
        f"{session.paint(printable(side.title), bold=True)} "
        f"{session.paint(side.id.short, fg='yellow')}"
        for side in (found.old, found.new)
    ]
    return " → ".join(sides)


def _section(session: Session, title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield session.paint(f"{title}:", bold=True)
    yield from (f"    {line}" for line in render.table(rows[:ROWS]))
    if len(rows) > ROWS:
        yield f"    and {len(rows) - ROWS} more: `--json` has all"


def _values(session: Session, title: str, changes: "Sequence[ValueChange]") -> Iterator[str]:
    rows = []
    for change in changes:
        old = [] if change.how == "added" else [_value(change.old)]
        new = [] if change.how == "removed" else [_value(change.new)]
        rows.append((_marked(session, change.how, change.path), " → ".join(old + new)))
    return _section(session, title, rows)


def _marked(session: Session, how: str, name: str) -> str:
    mark, colour = MARKS[how]
    return session.paint(f"{mark} {printable(name)}", fg=colour)


def _value(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        text = join(value)
    elif isinstance(value, str) and value:
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False)
    return printable(text if len(text) <= VALUE else f"{text[: VALUE - 1]}…")


def _metric(change: "MetricChange") -> tuple[str, str, str, str]:
    if change.mode:
        best = f"best {_reading(change, change.mode)}"
    else:
        best = f"min {_reading(change, 'min')}, max {_reading(change, 'max')}"
    last = f"last {_reading(change, 'last')}"
    return printable(change.name), last, best, _parting(change.parting)


def _reading(change: "MetricChange", name: str) -> str:
    return _arrow(
        render.number(getattr(side, name)) if side else "-" for side in (change.old, change.new)
    )


def _logged(session: Session, change: "LoggedChange") -> tuple[str, str, str]:
    old, new = change.old or "-", change.new or "-"
    number = f"{old} → {new}" if change.how != "changed" else _arrow([str(old), str(new)])
    steps = ", ".join(map(str, change.steps[:STEPS]))
    if change.differing > STEPS:
        steps += f" and {change.differing - STEPS} more"
    where = f"differs at step {steps}" if steps else change.note
    return _marked(session, change.how, f"{change.kind} {change.key}"), number, where


def _parting(parting: "Parting | None") -> str:
    if parting is None:
        return ""
    if parting.old is None or parting.new is None:
        side = "second" if parting.old is None else "first"
        return f"step {parting.step} is only in the {side}"
    return f"they part at step {parting.step}"


def _code(session: Session, found: "Comparison") -> Iterator[str]:
    if not found.code:
        return
    yield ""
    yield session.paint("code:", bold=True) + f" {_patch_size(found.code)}"
    drawn = patch(session, found.code)
    yield from (f"    {line}" for line in islice(drawn, PATCH_LINES))
    rest = sum(1 for _ in drawn)
    if rest:
        call = f"cas diff {found.old.id.short} {found.new.id.short} --code"
        yield f"    and {render.count(rest, 'more line')}: `{call}`"


def _patch_size(files: "Sequence[FilePatch]") -> str:
    if not files:
        return ""
    added, removed = sum(file.added for file in files), sum(file.removed for file in files)
    return f"{render.count(len(files), 'file')}, +{added} -{removed}"


def _coloured(session: Session, line: str) -> str:
    safe = "\t".join(map(printable, line.split("\t")))
    if line.startswith(("--- ", "+++ ")):
        return session.paint(safe, bold=True)
    colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
    return session.paint(safe, fg=colour) if colour else safe


def _input(session: Session, change: "InputChange") -> tuple[str, ...]:
    sides = [side for side in (change.old, change.new) if side is not None]
    return (
        _marked(session, change.how, change.role),
        printable(_arrow(map(_named, sides))),
        _arrow(side.commit.short for side in sides),
    )


def _named(side: "Input") -> str:
    path = f":{side.path}" if side.path else ""
    return f"{side.name}{path}{f' ({side.split})' if side.split else ''}"


def _file(session: Session, change: "FileChange") -> tuple[str, ...]:
    sizes = [size for size in (change.old_bytes, change.new_bytes) if size is not None]
    ids = [id.short for id in (change.old, change.new) if id is not None]
    return (
        _marked(session, change.how, change.path),
        _arrow(map(render.human_bytes, sizes)),
        _arrow(ids),
    )


def _weights(session: Session, weights: "Weights") -> Iterator[str]:
    if weights.same:
        return
    yield ""
    title = session.paint("weights:", bold=True)
    yield f"{title} {_counts(weights)} ({weights.old.short} → {weights.new.short})"
    rows = [_tensor(session, change) for change in weights.changed]
    rows += [(_marked(session, "added", path), *[""] * 4) for path in weights.added]
    rows += [(_marked(session, "removed", path), *[""] * 4) for path in weights.gone]
    head = ("  tensor", "", "changed", "in the mean", "at most")
    shown = render.table([head, *rows[:TENSORS]], right=(2, 3, 4)) if rows else []
    yield from (f"    {line}" for line in shown)
    if len(rows) > TENSORS:
        yield f"    and {len(rows) - TENSORS} more: `--json` has all"
    if weights.other_values:
        yield "    values that are no tensors differ too"


def _counts(weights: "Weights") -> str:
    if weights.note:
        return weights.note
    counts = {
        "equal": weights.equal,
        "changed": len(weights.changed),
        "added": len(weights.added),
        "gone": len(weights.gone),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{told} of {render.count(sum(counts.values()), 'tensor')}" if told else "no tensors"


def _tensor(session: Session, change: "TensorChange") -> tuple[str, ...]:
    old = f"{change.old_dtype}[{', '.join(map(str, change.old_shape))}]"
    new = f"{change.new_dtype}[{', '.join(map(str, change.new_shape))}]"
    share, mean, most = change.changed_share, change.mean_difference, change.max_difference
    return (
        _marked(session, "changed", change.path),
        _arrow([old, new]),
        "" if share is None else f"{share:.1%}",
        "" if mean is None else f"{mean:.3g}",
        "" if most is None else f"{most:.3g}",
    )


def _arrow(sides: Iterable[str]) -> str:
    """Return what was and what is, once when that is the same."""
    return " → ".join(dict.fromkeys(sides))
