"""The main job, end to end: `make demo` runs this in the folder `demo/` and leaves it there."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from time import monotonic

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "demo"
BIN = Path(sys.executable).parent
EPOCHS = "5"
# Git wants to know who commits; not everybody has told it.
WHO = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "demo"), ("EMAIL", "demo@localhost"))
}


def main() -> None:
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    shutil.copy(HERE / "train.py", DEMO)
    started = monotonic()
    # A project of its own, as a user has one; the repository goes beside its git one.
    (DEMO / ".gitignore").write_text("*.pt\n")
    run("git", "init", "--quiet", ".")
    run("git", "add", ".")
    run("git", "commit", "--quiet", "-m", "A training script")

    say("Two runs that differ in one hyperparameter, and a third from a checkpoint of the first")
    train("--name", "base", "--epochs", EPOCHS)
    train("--name", "faster", "--lr", "0.003", "--epochs", EPOCHS)
    train("--name", "longer", "--fork", "digits/base@best", "--epochs", "7")

    say("What there is, and what came from what")
    cas("log", "--graph")
    say("What differs between two of them")
    cas("diff", "digits/base", "digits/faster")
    say("What is this file, and where is it from?")
    cas("whence", "digits.pt")
    say("Keep the best two checkpoints of each run, give back the space of the others")
    cas("prune", "--keep-best", "2", "--yes")
    cas("gc")
    cas("fsck", "--full")
    say("The first run again, from its hash alone")
    base = json.loads(output("cas", "show", "digits/base", "--json"))["id"]
    reproduced = monotonic()
    cas("reproduce", base)
    took, again = monotonic() - started, monotonic() - reproduced
    print(f"\nDone in {took:.0f} s, {again:.0f} of them the reproduction. To try in demo/:\n")
    for line in (
        "cas log --checkpoints",
        "cas show digits/longer",
        "cas ls digits/base@best:state",
    ):
        print(f"  {line}")
    print("\n(`source ../.venv/bin/activate` puts cas on the path)")


def train(*args: str) -> None:
    run("python", "train.py", *args)


def cas(*args: str) -> None:
    run("cas", *args)


def say(text: str) -> None:
    print(f"\n# {text}", flush=True)


def run(*command: str) -> None:
    print(f"$ {shlex.join(command)}", flush=True)
    done = subprocess.run(found(command), cwd=DEMO, env=os.environ | WHO, check=False)
    if done.returncode:
        sys.exit(f"the demo stops here: {command[0]} ended with exit code {done.returncode}")


def output(*command: str) -> str:
    return subprocess.run(
        found(command), cwd=DEMO, check=True, capture_output=True, text=True
    ).stdout


def found(command: tuple[str, ...]) -> list[str]:
    """Return the command with the tools of this virtual environment first."""
    name = BIN / command[0]
    return [str(name) if name.exists() else command[0], *command[1:]]


if __name__ == "__main__":
    main()
