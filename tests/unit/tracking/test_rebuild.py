"""Recorded code in a folder of its own: everything stands where the program looks for it."""

import shutil
from pathlib import Path

import pytest

from cas.lineage.verdict import Verdict
from cas.tracking import reproduce
from cas.tracking.program import Program
from tests.support import runs
from tests.support.runs import (
    TRAIN,
    cas,
    only_run,
    opened,
    points,
    python,
    reproduced,
    run,
    script,
)

pytestmark = pytest.mark.slow  # whole programs, run and run again


@pytest.fixture
def project(here: Path) -> Path:
    return runs.project(here)


def test_links_in_the_code_never_lead_a_reproduction_to_the_users_files(project: Path) -> None:
    away = project.parent / "away"
    away.mkdir()
    (project / "data" / "x.csv").rename(away / "x.csv")
    (project / "data").rmdir()
    (project / "data").symlink_to(away)
    run(project, "git", "init", "-q")
    python(project, "train.py")
    (away / "x.csv").write_text("7\n8\n9\n")
    assert reproduced(project)[0].verdict == "identical"
    assert (away / "x.csv").read_text() == "7\n8\n9\n"


@pytest.mark.parametrize("way", ["module", "outside", "absolute"])
def test_however_it_was_started_it_is_started_again(project: Path, way: str) -> None:
    run(project, "git", "init", "-q")
    if way == "module":
        script(project, TRAIN, "pkg/train.py")
        python(project, "-B", "-X", "utf8", "-m", "pkg.train", "--lr", "1")
    elif way == "outside":
        script(project, TRAIN.replace('"data/', '"project/data/').replace('"../', '"'))
        python(project.parent, "project/train.py")
    else:
        python(project, project / "train.py")
    (project / "train.py").write_text("broken now")
    assert reproduced(project)[0].verdict == "identical"


def test_code_on_pythonpath_is_the_recorded_code(here: Path) -> None:
    run(here, "git", "init", "-q")
    script(here, "", "src/lib.py").write_text("X = 1\n")
    script(here, "import lib\nwith cas.track('a') as run:\n    run.log({'x': lib.X})\n")
    env = {"PYTHONPATH": str(here / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    python(here, "train.py", env=env)
    (here / "src" / "lib.py").write_text("X = 2\n")
    id, _ = only_run(opened(here))
    assert cas(here, "reproduce", str(id), env=env).stdout.startswith("identical")


def test_a_variable_that_matters_is_set_as_it_was(here: Path) -> None:
    names = ("OMP_NUM_THREADS", "TORCH_X")
    script(here, f"with cas.track('a') as r:\n    r.log({{n: n in os.environ for n in {names}}})\n")
    python(here, "train.py", env={"OMP_NUM_THREADS": "3"})
    id, commit = only_run(opened(here))
    assert points(opened(here), commit)["OMP_NUM_THREADS"] == [(0, 1.0)]
    done = cas(here, "reproduce", str(id), env={"TORCH_X": "1"})
    assert done.stdout.startswith("identical")


def test_a_program_comes_out_identical_with_its_inputs_and_outputs(here: Path) -> None:
    (here.parent / "in.txt").write_text("hello\n")
    run(here, "git", "init", "-q")
    (here / "tool.sh").write_text(
        "#!/bin/sh\ntr a-z A-Z < ../in.txt > out.txt; echo loss; echo 1\n"
    )
    (here / "tool.sh").chmod(0o755)
    line = ["run", "-e", "e", "-i", "../in.txt", "-o", "out.txt", "--metrics", "m.csv", "-p", "a=1"]
    cas(here, *line, "--", "sh", "-c", "./tool.sh > m.csv; grep -q HELLO out.txt")
    cas(here, *line, "--", "./tool.sh", code=0)
    repo = opened(here)
    (here.parent / "in.txt").write_text("other\n")
    (here / "out.txt").unlink()
    tips = [id for ref, id in repo.root.refs.items() if ref.startswith("runs/")]
    verdicts = [cas(here, "reproduce", str(tip)).stdout for tip in tips]
    assert sorted(verdicts)[0].startswith("identical: e/")
    assert [v.split(":")[0] for v in verdicts] == ["identical"] * 2
    assert not (here / "out.txt").exists()
    program = reproduce.plan(repo, tips[0]).command
    assert Program.from_document(program).inputs == ("../in.txt",)


def test_a_shell_command_without_git_takes_the_code_of_its_folder(here: Path) -> None:
    (here / "tool.sh").write_text("tr a-z A-Z\n")
    cas(here, "run", "-o", "out.txt", "--", "sh", "-c", "echo x | sh tool.sh > out.txt")
    (here / "tool.sh").write_text("broken now")
    assert reproduced(here)[0] == Verdict("identical", artifacts=1)


def test_the_folder_is_kept_when_asked(project: Path, tmp_path: Path) -> None:
    python(project, "train.py")
    said: list[str] = []
    reproduced(project, keep=True, tell=said.append)
    folder = Path(said[-1].removeprefix("kept "))
    assert (folder / project.parent.name / "project" / "out.txt").is_file()
    assert (folder / project.parent.name / "shared.csv").read_text() == "4\n"
    assert said[0].startswith("running python train.py in ")
    shutil.rmtree(folder)
    reproduced(project, tell=said.append)
    assert not Path(said[-1].rpartition(" in ")[2]).exists()
