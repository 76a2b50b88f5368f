"""Makes the golden repository of a format version; run once for each, never again.

    python -m tests.compat.golden tests/compat/fixtures/v1

It holds one of everything that the format knows: a person's commit with modes, links and odd names,
a blob cut into a recipe, numbers as planes and deltas, a file of tensors, runs with checkpoints, a
fork, a tag, a dataset, a pruned and collected payload, an index file, and enough refs for a
snapshot.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from cas.ids import blob_id
from cas.objects.commit import DATASET, RESUMED_FROM, Commit, Parent
from cas.repo import root
from cas.repo.collect import gc
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.repo.retain import prune
from cas.repo.retain.retention import Keep
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest
from cas.store import index
from tests.support.builders import RunBuilder, commit_files, noise, read_tree, repository, set_ref
from tests.support.weights import commit_weights


def main(target: Path) -> None:
    # Snapshots and index files stand in ordinary repositories only past some refs and packs.
    root.CHANGES_LIMIT, index.UNCOVERED = 6, 4
    with tempfile.TemporaryDirectory() as folder:
        repo = repository(Path(folder))
        _person(repo, Path(folder) / "files")
        data = commit_files(repo, {"input.json": b"{}\n"}, ref="datasets/noise", kind="input",
                            payload={"data": noise(1, 3000)})  # fmt: skip
        first = RunBuilder(repo, "exp/first", (Parent(DATASET, data, "", {"split": "train"}),))
        for step in range(4):
            first.checkpoint(step, {"w": noise(step, 2000), "b": b"\0" * 16}, value=1 / (step + 1))
        first.finish({"loss": 0.25})
        forked = RunBuilder(repo, "exp/forked", (Parent(RESUMED_FROM, first.ids[2]),))
        forked.checkpoint(3, {"w": noise(2, 2000), "b": b"\1" * 16}, value=0.1)
        forked.finish({"loss": 0.1}, status="failed")
        set_ref(repo, "tags/best", forked.ids[0])
        prune.execute(repo, prune.plan(repo, Keep(best=1)))
        gc.execute(repo, gc.plan(repo))
        commit_weights(repo, 20_000, spread=1e-6, some=200)
        repack.execute(repo, repack.plan(repo))
        for number in range(6):
            text = b"gc went by %d\n" % number
            commit_files(repo, {"after.txt": text}, payload={"after.txt": text})
        shutil.copytree(repo.path, target / "repo", ignore=shutil.ignore_patterns("hints", "tmp"))
        told = json.dumps(described(repo), indent=1, sort_keys=True, ensure_ascii=True)
        (target / "expected.json").write_text(told + "\n")


def described(repo: Repo) -> dict[str, Any]:
    """Return all that a repository says, as JSON data: refs, commits, and every held byte's id."""
    refs = repo.refresh().refs
    commits: dict[str, Any] = {}
    waiting = list(refs.values())
    while waiting:
        id = waiting.pop()
        if str(id) not in commits:
            commit = repo.commit(id)
            commits[str(id)] = _commit(repo, commit, held=f"holds/{id}" in refs)
            waiting += [parent.commit for parent in commit.parents]
    return {"refs": {name: str(id) for name, id in refs.items()}, "commits": commits}


def _commit(repo: Repo, commit: Commit, *, held: bool) -> dict[str, Any]:
    return {
        "kind": commit.kind,
        "run": commit.full_name,
        "parents": [[parent.role, str(parent.commit)] for parent in commit.parents],
        "tree": _digests(read_tree(repo, commit.tree)),
        "payload": None if commit.payload is None else str(commit.payload),
        "held": _digests(read_tree(repo, commit.payload)) if held and commit.payload else None,
    }


def _digests(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _digests(item) for name, item in value.items()}
    return str(blob_id(value))


def _person(repo: Repo, folder: Path) -> None:
    (folder / "empty").mkdir(parents=True)
    (folder / "tool.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "tool.sh").chmod(0o755)
    (folder / "private").write_bytes(b"")
    (folder / "private").chmod(0o600)
    (folder / "link").symlink_to("tool.sh")
    (folder / "naïve \N{SNOWMAN}").write_bytes(b"text\n" * 100)
    Path(os.fsdecode(os.fsencode(folder) + b"/not \xff utf-8")).write_bytes(b"raw")
    (folder / "cut").write_bytes(b"".join(b"line %d\n" % n for n in range(60_000)))

    def make(tx: Transaction) -> None:
        entry = ingest.add(tx.writer, folder)
        payload = ingest.nest(tx.writer, [(b"files", entry)])
        note = ingest.file_entry(tx.writer, b"params.json", b'{\n "lr": 0.1\n}\n')
        tree = ingest.nest(tx.writer, [(b"params.json", note)])
        id = tx.record(Commit(kind="commit", tree=tree.id, payload=payload.id, time=1, message="m"))
        tx.set_ref("heads/main", id)

    transact(repo, "commit", make)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
