"""A run again from its hash alone: identical, or diverged and where, or failed and at what."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cas.errors import NotFoundError, RefusedError
from cas.ids import CommitId
from cas.lineage.verdict import Verdict
from cas.objects.commit import Parent
from cas.objects.document import document
from cas.repo.collect import gc
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest
from cas.tracking import reproduce
from tests.support import runs
from tests.support.runs import (
    TRAIN,
    cas,
    listing,
    only_run,
    opened,
    python,
    reproduced,
    script,
    text,
)

pytestmark = pytest.mark.slow  # whole programs, run and run again


@pytest.fixture
def project(here: Path) -> Path:
    return runs.project(here)


def test_a_script_with_data_comes_out_identical_and_writes_nothing(project: Path) -> None:
    python(project, "train.py")
    repo = opened(project)
    original, _ = only_run(repo)
    (project / "data" / "x.csv").write_text("other now")
    (project / "train.py").write_text("broken now")
    before = {k: v for k, v in listing(project.parent).items() if ".cas" not in k}
    holds = {ref for ref in repo.root.refs if ref.startswith("holds/")}
    verdict, commit = reproduced(project)
    assert verdict == Verdict("identical", metrics=2, checkpoints=4, artifacts=1)
    after = {k: v for k, v in listing(project.parent).items() if ".cas" not in k}
    assert after == before
    refs = opened(project).root.refs
    assert {ref for ref in refs if ref.startswith("holds/")} == holds
    under = f"reproductions/{str(original)[:10]}/1"
    assert {ref for ref in refs if ref.startswith("reproductions/")} == {
        f"{under}/verdict", f"{under}/run-0"
    }  # fmt: skip
    assert [(parent.role, parent.commit) for parent in commit.parents] == [
        ("reproduces", original), ("evaluates", refs[f"{under}/run-0"])
    ]  # fmt: skip
    assert (commit.kind, commit.status, commit.full_name) == ("verdict", "identical", "a/x")
    assert json.loads(text(repo, commit, "verdict.json"))["checkpoints"] == 4
    assert refs["runs/a/x"] == original


def test_a_second_reproduction_has_the_number_two(project: Path) -> None:
    python(project, "train.py")
    for _ in range(2):
        assert reproduced(project)[0].verdict == "identical"
    repo = opened(project)
    refs = [ref for ref in repo.root.refs if ref.startswith("reproductions/")]
    assert sorted(ref.split("/", 2)[2] for ref in refs) == [
        "1/run-0", "1/verdict", "2/run-0", "2/verdict"
    ]  # fmt: skip
    gc.execute(repo, gc.plan(repo))
    cas(project, "fsck", "--full")


def test_an_unseeded_run_begins_with_the_same_random_numbers(here: Path) -> None:
    script(
        here,
        "import random\nimport numpy as np\nbefore = random.random()\nrun = cas.track('a')\n"
        "run.log({'x': random.random(), 'y': np.random.rand()})\nrun.save_checkpoint(model={})\n"
        "with cas.track('a') as second:\n    second.log({'x': random.random()})\n",
    )
    python(here, "train.py")
    repo = opened(here)
    ids = [id for ref, id in repo.root.refs.items() if ref.startswith("runs/")]
    first = next(id for id in ids if repo.commit(id).seq == 2)
    second = next(id for id in ids if id != first)
    assert reproduced(here, str(first))[0].verdict == "identical"
    assert reproduced(here, str(second))[0].verdict == "identical"
    assert repo.document(repo.commit(second).tree, "command.json")["ordinal"] == 1  # type: ignore[index]


def test_a_changed_seed_diverges_at_the_first_step(project: Path) -> None:
    seed = project.parent / "seed.txt"
    seed.write_text("1")
    env = {"SEED_FILE": str(seed)}
    python(project, "train.py", env=env)
    assert cas(project, "reproduce", "a/x", env=env).stdout.startswith("identical")
    seed.write_text("2")
    done = cas(project, "reproduce", "a/x", code=20, env=env)
    assert done.stdout.startswith("diverged: a/x, 2 metrics, 4 checkpoints, 1 artifact compared")
    assert "first at step 0: loss was" in done.stdout
    assert "seed seed: 1 → 2" in done.stdout
    assert "artifact out.txt differs" in done.stdout


def test_one_changed_byte_of_data_diverges_where_it_counts(project: Path) -> None:
    script(project, TRAIN.replace('"../shared.csv"', f'"{project.parent}/shared.csv"'))
    python(project, "train.py")
    assert reproduced(project)[0].verdict == "identical"
    (project.parent / "shared.csv").write_text("5\n")
    verdict, commit = reproduced(project)
    assert verdict.verdict == "diverged"
    assert verdict.first is not None
    assert (verdict.first.metric, verdict.first.step) == ("loss", 3)
    assert verdict.first.again == pytest.approx(verdict.first.original + 0.1)  # type: ignore[operator]
    assert set(verdict.differences) == {
        "metric loss differs", *(f"checkpoint {n}: step {n} differs" for n in range(4))
    }  # fmt: skip
    assert commit.status == "diverged"
    assert any(line.startswith("input dataset ../shared.csv: ") for line in verdict.explanations)
    assert reproduced(project, tolerance=0.5)[0].verdict == "equivalent"
    assert reproduced(project, tolerance=0.01)[0].verdict == "diverged"


def forged(repo: Repo, change: Callable[[bytes], bytes]) -> CommitId:
    """Commit the only run once more, with other code than its results came from."""
    id, commit = only_run(repo)

    def build(tx: Transaction) -> CommitId:
        files = {e.name: e for e in repo.entries(repo.lookup(commit.tree, b"code").id)}  # type: ignore[union-attr]
        old = repo.store.read(1, files[b"train.py"].id)  # type: ignore[arg-type]
        files[b"train.py"] = ingest.file_entry(tx.writer, b"train.py", change(old))
        code = [(b"code/" + name, entry) for name, entry in files.items()]
        rest = [(e.name, e) for e in repo.entries(commit.tree) if e.name != b"code"]
        new = tx.record(replace(commit, tree=ingest.nest(tx.writer, [*code, *rest]).id))
        tx.set_ref("runs/a/forged", new)
        return new

    made = transact(repo, "forge", build)
    assert made != id
    return made


def test_one_changed_line_of_code_diverges(project: Path) -> None:
    python(project, "train.py")
    repo = opened(project)
    id = forged(repo, lambda code: code.replace(b"/ 10", b"/ 9"))
    verdict, _ = reproduced(project, str(id))
    assert verdict.verdict == "diverged"
    assert verdict.first is not None
    assert (verdict.first.metric, verdict.first.step) == ("loss", 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((b"with cas.track", b"sys.exit(3)\nwith cas.track"), "exit code 3 and left no finished"),
        ((b"rows = ", b"raise ValueError('no luck')\n    rows = "), "ValueError: no luck"),
        ((b"rows = ", b"os.kill(os.getpid(), 9)\n    rows = "), "the run as crashed"),
    ],
    ids=["before the run", "inside it", "killed"],
)
def test_a_command_that_fails_is_a_verdict_too(
    project: Path, change: tuple[bytes, bytes], why: str
) -> None:
    python(project, "train.py")
    id = forged(opened(project), lambda code: code.replace(*change))
    verdict, commit = reproduced(project, str(id))
    assert (verdict.verdict, verdict.stage) == ("failed", "run")
    assert why in " ".join(verdict.differences)
    assert commit.parents[0] == Parent("reproduces", id)
    assert len(commit.parents) == (1 if "left no" in why else 2)
    assert cas(project, "reproduce", str(id), code=21).stdout.startswith("failed: a/x")


def test_a_run_that_failed_is_identical_when_it_fails_again(here: Path) -> None:
    python(
        here,
        script(here, "with cas.track('a') as run:\n    run.log({'x': 1})\n    0 / 0\n"),
        code=1,
    )
    assert reproduced(here)[0] == Verdict("identical", metrics=1)


def test_a_fork_is_reproduced_from_its_checkpoint_by_hash(here: Path) -> None:
    script(
        here,
        "import random\nif len(sys.argv) == 1:\n    run = cas.track('a', name='x', seed=1)\n"
        "else:\n    run = cas.fork('a/x~1', name='y')\n    run.load_checkpoint()\n"
        "for step in range(3):\n    run.log({'loss': random.random()})\n"
        "    run.save_checkpoint(model={'w': random.random()}, step=step)\nrun.finish()\n",
    )
    python(here, "train.py")
    python(here, "train.py", "fork")
    python(here, "-c", "import cas; r = cas.track('a', name='x'); r.finish()")
    repo = opened(here)
    transact(repo, "move", lambda tx: tx.set_ref("runs/a/x", repo.root.refs["runs/a/x-2"]))
    verdict, _ = reproduced(here, "a/y")
    assert verdict == Verdict("identical", metrics=1, checkpoints=3)
    fork = repo.commit(repo.root.refs["runs/a/y"])
    base = next(parent.commit for parent in fork.parents if parent.role == "resumed-from")
    transact(repo, "prune", lambda tx: tx.set_ref(f"holds/{base}", None))
    with pytest.raises(NotFoundError, match=r"payload of .* it was pruned"):
        reproduced(here, "a/y")


def test_pruned_data_is_missed_before_anything_runs(project: Path) -> None:
    python(project, "train.py")
    repo = opened(project)
    for data in ("x.csv", "shared.csv"):
        id = repo.root.refs[f"datasets/{data}"]
        transact(repo, "prune", lambda tx, id=id: tx.set_ref(f"holds/{id}", None))  # type: ignore[misc]
    with pytest.raises(NotFoundError, match="this run starts from it"):
        reproduced(project)
    assert "not found" in cas(project, "reproduce", "a/x", code=3).stderr


def test_the_run_that_is_reproduced_is_found_from_any_of_its_commits(project: Path) -> None:
    python(project, "train.py")
    repo = opened(project)
    tip, commit = only_run(repo)
    checkpoint = commit.parents[0].commit
    assert reproduce.finishing(repo, checkpoint) == tip
    with pytest.raises(NotFoundError, match="it is a commit of kind input"):
        reproduce.finishing(repo, repo.root.refs["datasets/x.csv"])
    verdict, _ = reproduced(project)
    under = f"reproductions/{str(tip)[:10]}/1/run-0"
    copy = opened(project).root.refs[under]
    assert reproduce.finishing(opened(project), repo.commit(copy).parents[0].commit) == copy
    assert verdict.verdict == "identical"


def test_what_has_no_command_is_refused(here: Path) -> None:
    python(here, "-c", "import cas\nrun = cas.track('a', name='x')\nrun.save_checkpoint(model={})")
    repo = opened(here)
    _, commit = only_run(repo)

    def change(kind: str | None) -> CommitId:
        def build(tx: Transaction) -> CommitId:
            rest = [(e.name, e) for e in repo.entries(commit.tree) if e.name != b"command.json"]
            if kind is not None:
                raw = document({"kind": kind, "python": [], "argv": []})
                rest.append((b"command.json", ingest.file_entry(tx.writer, b"command.json", raw)))
            new = tx.record(replace(commit, tree=ingest.nest(tx.writer, rest).id))
            tx.set_ref("tags/t", new)
            return new

        return transact(repo, "change", build)

    for kind in ("notebook", "interactive"):
        with pytest.raises(RefusedError, match="no command to run again"):
            reproduce.plan(repo, change(kind))
    with pytest.raises(NotFoundError, match="only tracked runs"):
        reproduce.plan(repo, change(None))
    transact(repo, "move", lambda tx: tx.set_ref("runs/a/x", commit.parents[0].commit))
    with pytest.raises(RefusedError, match="a/x has not ended"):
        reproduce.plan(repo, commit.parents[0].commit)


def test_an_interpreter_that_is_not_there_fails_at_the_start(project: Path) -> None:
    python(project, "train.py")
    verdict, commit = reproduced(project, python="/nowhere/python")
    assert (verdict.verdict, verdict.stage) == ("failed", "start")
    assert "cannot run /nowhere/python" in verdict.differences[0]
    assert len(commit.parents) == 1


def test_artifacts_that_were_pruned_are_not_compared(here: Path) -> None:
    script(
        here,
        "open('large', 'wb').write(os.urandom(70_000))\nopen('small', 'w').write('s')\n"
        "with cas.track('a', name='x') as run:\n"
        "    run.log_artifact('large')\n    run.log_artifact('small')\n",
    )
    python(here, "train.py")
    verdict, _ = reproduced(here)
    assert (verdict.verdict, verdict.artifacts) == ("diverged", 2)
    assert verdict.differences == ("artifact large differs",)
    repo = opened(here)
    id, _ = only_run(repo)
    transact(repo, "prune", lambda tx: tx.set_ref(f"holds/{id}", None))
    gc.execute(repo, gc.plan(repo))
    assert reproduced(here)[0] == Verdict("identical", artifacts=1)
