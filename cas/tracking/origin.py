"""What a run begins from when it does not begin anew: a checkpoint, or a run that is reproduced."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cas.errors import NotFoundError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import RESUMED_FROM, Commit, Parent
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.tracking.captured.capture import Start, as_params
from cas.tracking.captured.variables import ORIGINAL_VARIABLE
from cas.tracking.checkpoints.checkpoint import PRUNED, checkpoint_at


@dataclass(frozen=True, slots=True)
class Base:
    """The checkpoint that a run is forked from, and its params."""

    commit: CommitId
    params: Mapping[str, Any]

    def begun(self, start: Start) -> Start:
        """Return how a run begins from here: with these params, where it has no others."""
        parent = Parent(RESUMED_FROM, self.commit)
        params = {**self.params, **as_params(start.params)}
        return replace(start, params=params, parents=(*start.parents, parent))


def forked_from(repo: Repo, rev: str) -> Base:
    """Return the checkpoint to begin from; in a reproduction, what the original began from."""
    told = original(repo)
    known = told.parents_of(RESUMED_FROM) if told is not None else ()
    base = known[0].commit if known else checkpoint_at(repo, rev)
    if f"{HOLDS}{base}" not in repo.refresh().refs:
        raise NotFoundError("state of", base.short, PRUNED)
    params = repo.document(repo.commit(base).tree, "params.json")
    return Base(base, params if isinstance(params, dict) else {})


def original(repo: Repo) -> Commit | None:
    """Return the commit that is reproduced, None when this is no reproduction."""
    told = os.environ.get(ORIGINAL_VARIABLE)
    return repo.commit(CommitId(ObjectId.parse(told))) if told else None


def reproduced(repo: Repo, ordinal: int) -> Commit | None:
    """Return the commit that is reproduced when it is this run that it stands for."""
    told = original(repo)
    if told is None:
        return None
    started = repo.document(told.tree, "command.json")
    known = started.get("ordinal") if isinstance(started, dict) else None
    return told if known == ordinal else None
