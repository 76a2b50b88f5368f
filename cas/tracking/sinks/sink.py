"""Sinks: where what a run logs goes as well, while it goes on.

A sink takes plain data, one map for each thing, in the order in which it was logged, with a `type`:
`begin`, `params`, `metadata`, `point`, `logged`, `event`, `end`. It is fed behind the loop from the
run's own journal, so that it costs the loop nothing; one that fails is told of once and gets no
more. The run has all of it anyway: a sink is a copy for others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from cas.errors import InvalidInputError

KINDS: Final = ("jsonl", "tensorboard")


@runtime_checkable
class Sink(Protocol):
    """Takes what a run logs; called by one thread of its own, never by the training loop's.

    One that has a set of kinds as `contents` gets what was logged of these with its `content`.
    """

    def take(self, line: Mapping[str, Any]) -> None:
        """Take one thing that was logged, as plain data with a `type`."""

    def close(self) -> None:
        """End; called once, when the run has ended or the sink has failed."""


def as_sinks(told: object) -> list[Sink]:
    """Return the sinks that a user names: objects, kinds, or maps as a config has them.

    `{"kind": "jsonl", "path": FILE}` appends to FILE, which without a path is `cas.jsonl` in
    the current folder: a line `begin` tells one run from another. `tensorboard` writes event files
    below the folder `path`, which is `runs` without one. Raises InvalidInputError.
    """
    if told is None:
        return []
    given = told if isinstance(told, Sequence) and not isinstance(told, str) else [told]
    return [one if isinstance(one, Sink) else _of_words(one) for one in given]


def _of_words(told: object) -> Sink:
    words = {"kind": told} if isinstance(told, str) else told
    if not isinstance(words, Mapping) or words.get("kind") not in KINDS:
        raise InvalidInputError(
            f"a sink has take() and close(), or is a map whose kind is {' or '.join(KINDS)}, "
            f"not {told!r}"
        )
    unknown = sorted(set(words) - {"kind", "path"}, key=str)
    if unknown:
        raise InvalidInputError(f"a sink has no {unknown[0]!r}: there are kind and path")
    if words["kind"] == "tensorboard":
        from cas.tracking.sinks.tensorboard import TensorBoard

        return TensorBoard(Path(words.get("path") or "runs").absolute())
    from cas.tracking.sinks.jsonlines import JsonLines

    return JsonLines(Path(words.get("path") or "cas.jsonl").absolute())
