"""`cas diff` shows each kind of difference that there is, and no other."""

from pathlib import Path

import numpy as np

import cas as library
from cas.cli.session import Session
from cas.ids import CommitId
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.lineage import checkpoint, make


def terminal() -> Session:
    """Return a session whose results go to a terminal."""
    session = Session()
    session.terminal = session.colour = True
    return session


def two_runs(repo: Repo) -> tuple[CommitId, CommitId]:
    ends = []
    for run, lr in (("one", 0.1), ("two", 0.2)):
        weights = {"model": {"same": np.arange(50.0), "w": np.full(50, lr)}}
        points = {"loss": [(0, 3.0), (1, 2.0 - lr)]}
        first = checkpoint(repo, weights, run=run, step=1, metrics=points)
        ends.append(
            make(
                repo,
                run=run,
                before=first,
                metrics=points,
                documents={
                    "params": {"lr": lr, "opt": {"name": "sgd"}},
                    "environment": {"packages": {"numpy": f"{run}.0"}, "python": "3.11"},
                    "seeds": {"seed": 1},
                },
                record={"code/train.py": f"lr = {lr}\nend\n".encode(), "artifacts/a": run.encode()},
            )
        )
    return ends[0], ends[1]


def test_two_runs_are_compared_section_by_section(cas: Cas, repo: Repo) -> None:
    old, new = two_runs(repo)
    out = cas("diff", str(old), str(new)).out
    assert out.startswith(f"exp/one {old.short} → exp/two {new.short}\n")
    for expected in (
        "\nparams:\n    ~ lr  0.1 → 0.2\n",
        "\nmetrics:\n    loss  last 1.9 → 1.8  min 1.9 → 1.8, max 3  they part at step 1\n",
        "\ncode: 1 file, +1 -1\n    --- a/train.py\n",
        "    -lr = 0.1\n    +lr = 0.2\n",
        "\npackages:\n    ~ numpy  one.0 → two.0\n",
        "\nartifacts:\n    ~ a  3 B  ",
        "\nweights: 1 equal, 1 changed of 2 tensors (",
        "    ~ model.w  float64[50]   100.0%          0.1      0.1\n",
    ):
        assert expected in out
    for absent in ("seeds:", "environment:", "inputs:", "opt.name", "\x1b"):
        assert absent not in out


def test_one_revision_is_compared_with_the_one_before(cas: Cas, repo: Repo) -> None:
    first = checkpoint(repo, {"w": np.zeros(3)}, step=1)
    second = checkpoint(repo, {"w": np.ones(3)}, step=2, before=first)
    result = cas("diff", str(second))
    assert result.lines[0] == (
        f"exp/one checkpoint 1 {first.short} → exp/one checkpoint 2 {second.short}"
    )
    refused = cas("diff", str(first))
    assert (refused.code, refused.out) == (2, "")
    assert "has no commit before it" in refused.err


def test_equal_commits_say_so(cas: Cas, repo: Repo) -> None:
    id = str(make(repo, documents={"params": {"a": 1}}))
    for option in ([], ["--stat"]):
        assert cas("diff", id, id, *option).lines[1:] == ["nothing that is compared differs"]
    assert cas("diff", id, id, "--json").json["same"] is True


def test_stat_is_one_line_for_each_kind(cas: Cas, repo: Repo) -> None:
    old, new = two_runs(repo)
    lines = [line.split(maxsplit=1) for line in cas("diff", "--stat", str(old), str(new)).lines[1:]]
    assert lines == [
        ["params", "1 changed"],
        ["packages", "1 changed"],
        ["artifacts", "1 changed"],
        ["metrics", "1 differ: loss"],
        ["code", "1 file, +1 -1"],
        ["weights", "1 equal, 1 changed of 2 tensors"],
    ]


def test_code_alone_is_a_patch(cas: Cas, repo: Repo) -> None:
    old, new = two_runs(repo)
    assert cas("diff", "--code", str(old), str(new)).lines == [
        "--- a/train.py",
        "+++ b/train.py",
        "@@ -1,2 +1,2 @@",
        "-lr = 0.1",
        "+lr = 0.2",
        " end",
    ]


def test_a_long_patch_is_cut_and_says_how_to_see_it(cas: Cas, repo: Repo) -> None:
    old = make(repo, record={"code/a.py": b""})
    new = make(repo, record={"code/a.py": b"line\n" * 100})
    out = cas("diff", str(old), str(new)).out
    assert out.count("+line") == 57
    assert f"and 43 more lines: `cas diff {old.short} {new.short} --code`" in out
    assert cas("diff", str(old), str(new), "--code").out.count("+line") == 100


def test_json_has_everything(cas: Cas, repo: Repo) -> None:
    old, new = two_runs(repo)
    data = cas("diff", "--json", str(old), str(new)).json
    assert data["same"] is False
    assert data["old"] == {"id": str(old), "kind": "run", "title": "exp/one"}
    assert data["params"] == [{"path": "lr", "how": "changed", "old": 0.1, "new": 0.2}]
    assert data["metrics"][0]["parting"] == {"step": 1, "old": 1.9, "new": 1.8}
    assert data["code"][0]["lines"][-1] == " end"
    assert data["weights"]["changed"][0]["changed_share"] == 1.0


def test_control_characters_reach_no_terminal(cas: Cas, repo: Repo) -> None:
    old = make(repo, documents={"params": {"a\x1b[2J": "\x1b]0;x"}}, record={"code/f": b"a\n"})
    new = make(repo, record={"code/f": b"\x1b[2J\tb\n"}, documents={"params": {}})
    for option in ([], ["--code"]):
        out = cas("diff", *option, str(old), str(new), session=terminal()).out
        assert "\x1b[2J" not in out
        assert "\x1b]0" not in out
        assert "\\x1b[2J\tb" in out
        assert "\x1b[32m+" in out


def test_runs_as_they_are_tracked_are_compared(cas: Cas, repo: Repo, place: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        with library.track("exp", name=name, params={"lr": lr}, repo=place) as run:
            run.track_dataset({"x": np.arange(20.0) + lr}, name="rows", split="train")
            run.save_checkpoint(model={"w": np.full(20, lr)}, step=1, metrics={"loss": lr})
            run.log({"loss": lr / 2}, step=2)
            for step in range(8):
                run.log_text("val/said", f"with {lr if step else 'any'}", step=step)
            run.log_text(f"only/{name}", "x")
    out = cas("diff", "exp/a", "exp/b").out
    assert "~ lr  0.1 → 0.2" in out
    assert "loss  last 0.05 → 0.1  best 0.05 → 0.1  they part at step 1" in out
    assert "+ text only/b    - → 1" in out
    assert "- text only/a    1 → -" in out
    assert "~ text val/said  8      differs at step 1, 2, 3, 4, 5 and 2 more" in out
    assert "logged   1 added, 1 removed, 1 changed" in cas("diff", "exp/a", "exp/b", "--stat").out
    told = cas("diff", "exp/a", "exp/b", "--json").json["logged"]
    assert [one["steps"] for one in told] == [[], [], [1, 2, 3, 4, 5, 6, 7]]
    assert "~ dataset  rows (train)  " in out
    assert "~ model.w  float64[20]   100.0%          0.1      0.1" in out
    assert "packages" not in out
    assert "environment" not in out
    np.save(place / "w.npy", np.full(20, 0.2))
    assert "exp/b checkpoint 1" in cas("whence", "w.npy").out


def test_what_cannot_be_named_is_one_line(cas: Cas, repo: Repo, place: Path) -> None:
    id = str(make(repo))
    assert cas("diff", "nothing", id).code == 3
    assert cas("diff", f"{id}:code", id).code == 2


def test_one_form_at_a_time(cas: Cas, repo: Repo) -> None:
    assert cas("diff", "HEAD", "--stat", "--code").code == 2
