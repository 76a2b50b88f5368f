"""What the pages of decisions say is so."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cas.ids import CommitId
from cas.repo.repo import Repo
from cas.repo.revision import resolve
from cas.tracking import reproduce
from tests.support.builders import commit_files, repository, set_ref

SCRIPT = """\
import json, pathlib, sys, time
import cas

pathlib.Path("notes.txt").write_text("what I saw")
with cas.track("x", name=sys.argv[1], seed=0) as run:
    if "artifact" in sys.argv:
        run.log_artifact("notes.txt")
    loss = time.time() if "clock" in sys.argv else 0.5
    first = run.save_checkpoint(model={"w": loss}, step=1, metrics={"loss": loss}).commit
    refs = run.repo.refresh().refs
    drafts = [name for name in refs if name.startswith("open/")]
    held = [f"holds/{refs[name]}" in refs for name in drafts]
print(json.dumps({"payload": str(run.repo.commit(first).payload), "drafts": drafts, "held": held}))
"""


def tracked(folder: Path, *args: str) -> dict[str, Any]:
    """Run the script in a process of its own; return what it says."""
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", *args],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def held(repo: Repo) -> set[str]:
    """Return the names of the holds."""
    return {name for name in repo.refresh().refs if name.startswith("holds/")}


def test_2_a_payload_does_not_depend_on_what_was_logged_before(tmp_path: Path) -> None:
    without, with_one = tracked(tmp_path, "plain"), tracked(tmp_path, "rich", "artifact")
    assert with_one["payload"] == without["payload"]


def test_2_the_draft_outlives_a_checkpoint_and_goes_at_the_end(tmp_path: Path) -> None:
    said = tracked(tmp_path, "rich", "artifact")
    assert said["drafts"] == ["open/x/rich"]
    repo = Repo.open(tmp_path / ".cas")
    assert not [name for name in repo.root.refs if name.startswith("open/")]
    (run,) = [id for name, id in repo.root.refs.items() if name.startswith("runs/")]
    (checkpoint,) = (parent.commit for parent in repo.commit(run).parents_of("previous"))
    assert held(repo) == {f"holds/{checkpoint}"}
    assert repo.lookup(repo.commit(run).tree, b"artifacts/notes.txt") is not None


@pytest.mark.parametrize("hint", ["4", "2", "999", "-1", "three", "", None])
def test_4_the_newest_root_is_found_whatever_the_hint_says(
    tmp_path: Path, hint: str | None
) -> None:
    repo = repository(tmp_path)
    id = commit_files(repo, {"a": b"a"}, ref="heads/main")
    for number in range(3):
        set_ref(repo, f"tags/{number}", id)
    newest = repo.refresh().seq
    if hint is None:
        (repo.path / "hints" / "root").unlink()
    else:
        repo.backend.write_hint("root", hint)
    assert Repo.open(repo.path).root.seq == newest


@pytest.mark.parametrize(("kind", "verdict"), [("same", "identical"), ("clock", "diverged")])
def test_5_only_what_came_out_the_same_is_let_go_of(
    tmp_path: Path, kind: str, verdict: str
) -> None:
    tracked(tmp_path, "base", kind)
    repo = Repo.open(tmp_path / ".cas", who="ada", clock=lambda: 1)
    before = held(repo)
    planned = reproduce.plan(repo, resolve(repo, "x/base"))
    found, commit = reproduce.execute(repo, planned)
    assert found.verdict == verdict, found
    after = held(repo)
    assert (after == before) is (verdict == "identical")
    # The same root that publishes the verdict lets go.
    moved = {change.name: change.new for change in repo.root.changes}
    assert CommitId(commit) in moved.values()
    assert any(name.startswith("holds/") for name in moved) is (verdict == "identical")
