"""What a commit is called in a sentence."""

from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, DRAFT, INPUT, RUN, VERDICT, Commit
from cas.repo.repo import Repo


def title(repo: Repo, id: CommitId) -> str:
    """Return a commit's name for people, without its hash: `digits/brave-otter checkpoint 3`.

    The number of a checkpoint is its step, or its place in the run when it has no step.
    """
    commit = repo.commit(id)
    run = commit.full_name or ""
    if commit.kind == CHECKPOINT:
        return f"{run} checkpoint {commit.seq if commit.step is None else commit.step}"
    if commit.kind == RUN:
        return run
    if commit.kind == DRAFT:
        return f"{run} ({commit.status or 'open'})"
    if commit.kind == INPUT:
        return f"input {input_name(repo, commit) or id.short}"
    if commit.kind == VERDICT:
        return f"verdict {commit.status or ''}".rstrip()
    return commit.message.strip().partition("\n")[0] or "commit"


def input_name(repo: Repo, commit: Commit) -> str | None:
    """Return the name that an input was given."""
    about = repo.document(commit.tree, "input.json")
    name = about.get("name") if isinstance(about, dict) else None
    return name if isinstance(name, str) else None
