"""A budget: which checkpoints go so that the rest takes no more than so many bytes.

What checkpoints take is every record that the payload of one of them needs, once, with the bases of
its deltas: sharing is counted as it is. Records of the history, datasets and other artifacts are
not in it, nor what `gc` leaves for now in packs that are mostly alive.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from math import isnan

from cas.errors import RefusedError
from cas.ids import CommitId, ObjectId
from cas.plain import human_bytes
from cas.repo.repo import Repo
from cas.repo.report.tally import Tally
from cas.repo.retain.retention import Checkpoint, Decision
from cas.store.pinned import PinnedStore

Needs = Mapping[ObjectId, int]  # the bytes of each record


def measure(repo: Repo) -> Callable[[CommitId], Needs]:
    """Return what tells which records the payload of a commit needs."""
    store = PinnedStore(repo.backend, repo.root.packs)

    def needs(id: CommitId) -> Needs:
        payload = repo.commit(id).payload
        tally = Tally(store)
        if payload is not None:
            tally.tree(payload)
            tally.close()
        return tally.taken

    return needs


def fit(
    decisions: Sequence[Decision],
    limit: int,
    needs: Callable[[CommitId], Needs],
    protected: Collection[CommitId],
    *,
    word: int | str | None = None,
) -> tuple[tuple[Decision, ...], int]:
    """Drop the worst of what is kept until the rest fits; return all decisions and its bytes.

    Raises RefusedError when what is protected alone is too much. `word` is how the user said it.
    """
    kept = {item.checkpoint.commit: item.checkpoint for item in decisions if item.keep}
    records = {id: needs(id) for id in kept}
    users = Counter(record for one in records.values() for record in one)
    sizes = {record: size for one in records.values() for record, size in one.items()}
    total = sum(sizes.values())
    going: list[CommitId] = []
    for item in worst_first([it for id, it in kept.items() if id not in protected]):
        if total <= limit:
            break
        going.append(item.commit)
        for record in records[item.commit]:
            users[record] -= 1
            total -= 0 if users[record] else sizes[record]
    said = human_bytes(limit) if word is None or isinstance(word, int) else word
    if total > limit:
        raise RefusedError(
            f"what is protected takes {human_bytes(total)} alone, over the budget of {said}: "
            "raise it, or delete the tags and runs that protect it"
        )
    dropped = {id for id in going if not _is_free(records[id], users)}
    reason = (f"over the budget of {said}",)
    return tuple(
        replace(item, keep=False, reasons=reason) if item.checkpoint.commit in dropped else item
        for item in decisions
    ), total


def worst_first(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return checkpoints of one or more runs, the first to go first.

    By the monitor, then by age; what was said to be the best comes last, by age alone. Values of
    different monitors cannot be compared, so each goes by its place among those with the same
    monitor, from the worst to the best.
    """
    said = [item for item in checkpoints if item.best]
    groups: dict[tuple[str, str] | None, list[Checkpoint]] = {}
    for item in (item for item in checkpoints if not item.best):
        told = item.monitor
        known = None if told is None else (told.metric, told.mode)
        groups.setdefault(known, []).append(item)
    placed = [
        (number / len(group), _age(item), item)
        for group in groups.values()
        for number, item in enumerate(sorted(group, key=_goodness))
    ]
    ordered = [item for *_, item in sorted(placed, key=lambda row: row[:2])]
    return ordered + sorted(said, key=_age)


def _goodness(item: Checkpoint) -> tuple[bool, float, tuple[int, int, CommitId]]:
    monitor = item.monitor
    if monitor is None or isnan(monitor.value):
        return False, 0.0, _age(item)
    return True, monitor.value if monitor.mode == "max" else -monitor.value, _age(item)


def _age(item: Checkpoint) -> tuple[int, int, CommitId]:
    return item.time or 0, item.seq, item.commit


def _is_free(records: Needs, users: Counter[ObjectId]) -> bool:
    """Say whether a checkpoint needs nothing that what stays does not need."""
    return all(users[record] for record in records)
