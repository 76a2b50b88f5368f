"""Weights that drift: what one step changes is far smaller than they are themselves.

first, second = drifting(1, 0), drifting(1, 1)
"""

from collections.abc import Mapping

import numpy as np

from cas.ids import CommitId, blob_id
from cas.objects.commit import COMMIT, PREVIOUS, Commit, Parent
from cas.objects.elements import element_of
from cas.objects.manifest import INLINE_LIMIT, State, TensorRow
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.store.index import Place
from cas.store.pinned import PinnedStore
from tests.support.builders import RunBuilder, read_tree

SIZE = 20_000


def drifting(seed: int, step: int, size: int = SIZE, by: int = 1) -> bytes:
    """Return bytes that no codec makes smaller, after so many steps of at most `by` up or down."""
    data = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    for number in range(step):
        rng = np.random.default_rng([seed, number])
        data += rng.integers(0, 2 * by + 1, size, dtype=np.uint8) - np.uint8(by)
    return data.tobytes()


def drift_run(
    repo: Repo,
    name: str = "exp/one",
    *,
    seed: int = 1,
    steps: int = 6,
    size: int = SIZE,
    by: int = 1,
) -> list[CommitId]:
    """Commit a run whose weights drift; return its checkpoints."""
    run = RunBuilder(repo, name)
    for step in range(steps):
        run.checkpoint(step, {"w": drifting(seed, step, size, by)}, value=float(step))
    return run.ids


Tensors = Mapping[tuple[str | int, ...], tuple[str, tuple[int, ...], bytes]]


def commit_state(
    repo: Repo, ref: str, tensors: Tensors, parents: tuple[Parent, ...] = (), *, at: str = "state"
) -> CommitId:
    """Commit a state of tensors, each a dtype, a shape and its bytes, after what the ref was."""

    def make(tx: Transaction) -> CommitId:
        rows = []
        for path, (dtype, shape, data) in tensors.items():
            small = len(data) <= INLINE_LIMIT
            id = blob_id(data) if small else tx.writer.blob(data, element_of(dtype))
            rows.append(TensorRow(path, dtype, shape, id, data if small else None))
        state = State(None, tuple(rows))
        manifest = tx.writer.manifest(state.to_bytes())
        entry = Entry(at.encode(), EntryKind.STATE, manifest, state.size)
        payload = build([entry], tx.writer.tree).id
        old = tx.ref(ref)
        before = (Parent(PREVIOUS, old),) if old else ()
        tree = build([], tx.writer.tree).id
        commit = Commit(kind=COMMIT, tree=tree, payload=payload, parents=before + parents, seq=seq)
        made = tx.record(commit)
        tx.set_ref(ref, made)
        return made

    seq = len(repo.refresh().refs)
    return transact(repo, "state", make)


def floats(seed: int, step: int, count: int = 10_000, by: float = 1e-6) -> bytes:
    """Return float32 weights after so many steps."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.02, count).astype(np.float32)
    for _ in range(step):
        values += rng.normal(0, by, count).astype(np.float32)
    return values.tobytes()


def places(repo: Repo) -> dict[bytes, Place]:
    """Return the records that everybody takes, by id."""
    store = PinnedStore(repo.backend, repo.refresh().packs)
    ids = {row.id for pack in store.packs for row in store.rows(pack)}
    return {id: store.places(id)[0] for id in ids}


def depths(repo: Repo) -> list[int]:
    """Return how deep the deltas are that everybody takes."""
    return sorted(place.row.depth for place in places(repo).values() if place.row.depth)


def weights(repo: Repo, id: CommitId) -> object:
    """Return what the state of a held checkpoint is made of."""
    payload = repo.commit(id).payload
    assert payload is not None
    return read_tree(repo, payload)["state"]
