"""Commits of weights, in all the forms that they are stored in."""

import io

import numpy as np

from cas.objects.commit import Commit
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest
from cas.repo.trees.cutting import store_tensors
from tests.support import tensorfiles
from tests.support.drift import Tensors, commit_state


def commit_weights(repo: Repo, count: int, *, spread: float, some: int) -> None:
    """Commit numbers that become planes and deltas of both kinds, the last in a file as well.

    From one commit to the next all of the one tensor move a little, and `some` of the other.
    """
    rng = np.random.default_rng(1)
    full, few = rng.normal(0, 0.02, count).astype("<f4"), rng.integers(0, 2**16, count, "<u2")
    for _ in range(3):
        full += rng.normal(0, spread, full.size).astype("<f4")
        few[rng.integers(0, few.size, some)] += 1
        tensors: Tensors = {
            ("full",): ("float32", full.shape, full.tobytes()),
            ("few",): ("bfloat16", few.shape, few.tobytes()),
        }
        commit_state(repo, "heads/weights", tensors)
    file = tensorfiles.safetensors({"full": ("F32", [count], full.tobytes())})

    def make(tx: Transaction) -> None:
        found = store_tensors(tx.writer, io.BytesIO(file), len(file))
        assert found is not None
        entry = Entry(b"full.safetensors", EntryKind.FILE, found[0], len(file), 0o644)
        payload = ingest.nest(tx.writer, [(entry.name, entry)])
        tree = ingest.nest(tx.writer, [])
        id = tx.record(Commit(kind="input", tree=tree.id, payload=payload.id))
        tx.set_ref("models/full", id)

    transact(repo, "model", make)
