"""A command is captured so that it can be started again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cas.tracking.captured.command import command, parse, restart
from cas.tracking.privacy.secrets import REMOVED

SHOW = """
import json
from cas.tracking.captured.command import command, default_experiment, entry_point
entry = entry_point()
print(json.dumps([command(), default_experiment(), str(entry) if entry else None]))
"""


@pytest.mark.parametrize(
    ("argv", "parsed"),
    [
        (["python", "train.py", "-m", "x"], ([], "script", ["train.py", "-m", "x"])),
        (["python", "-O", "-u", "t.py"], (["-O", "-u"], "script", ["t.py"])),
        (["python", "-X", "dev", "-m", "a.b", "c"], (["-X", "dev"], "module", ["a.b", "c"])),
        (["python", "-Wd", "-uma.b"], (["-W", "d", "-u"], "module", ["a.b"])),
        (["python", "-c", "pass", "1"], ([], "inline", ["pass", "1"])),
        (["python", "-OOcpass"], (["-OO"], "inline", ["pass"])),
        (
            ["python", "--check-hash-based-pycs", "never", "t.py"],
            (["--check-hash-based-pycs", "never"], "script", ["t.py"]),
        ),
        (["python"], ([], "interactive", [])),
        (["python", "-i", "-"], (["-i"], "interactive", [])),
        ([], ([], "interactive", [])),
    ],
)
def test_the_interpreters_options_are_parted_from_the_programs(
    argv: list[str], parsed: tuple[list[str], str, list[str]]
) -> None:
    assert parse(argv) == parsed


def start(folder: Path, *arguments: str) -> list[object]:
    environ = {**os.environ, "PYTHONPATH": f"{Path.cwd()}{os.pathsep}{folder}"}
    answer = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, check=True
    )
    import json

    found: list[object] = json.loads(answer.stdout)
    return found


def test_a_script_is_named_relative_to_the_folder_and_secrets_are_masked(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    script = tmp_path / "src" / "train model.py"
    script.write_text(SHOW)
    started, experiment, entry = start(tmp_path, "-O", str(script), "--lr", "1", "--api-key", "x")
    argv = ["src/train model.py", "--lr", "1", "--api-key", REMOVED]
    assert started == {"kind": "script", "python": ["-O"], "argv": argv}
    assert (experiment, entry) == ("train-model", str(script))
    assert isinstance(started, dict)
    assert restart(started, "py") == ["py", "-O", *argv]


def test_a_module_is_started_again_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__main__.py").write_text(SHOW)
    (tmp_path / "pack" / "fit.py").write_text(SHOW)
    started, experiment, entry = start(tmp_path, "-m", "pack.fit", "7")
    assert started == {
        "kind": "module", "python": [], "argv": ["pack.fit", "7"], "module": "pack.fit"
    }  # fmt: skip
    assert (experiment, entry) == ("fit", str(tmp_path / "pack" / "fit.py"))
    assert isinstance(started, dict)
    assert restart(started, "py") == ["py", "-m", "pack.fit", "7"]
    assert start(tmp_path, "-m", "pack")[1] == "pack"


def test_inline_code_has_no_entry_point(tmp_path: Path) -> None:
    started, experiment, entry = start(tmp_path, "-c", SHOW, "1")
    assert isinstance(started, dict)
    assert started["kind"] == "inline"
    assert restart(started, "py") == ["py", "-c", SHOW, "1"]
    assert (experiment, entry) == ("interactive", None)


def test_options_of_the_interpreter_lose_their_secrets_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
    monkeypatch.setattr("sys.orig_argv", ["python", "-X", f"pycache_prefix=/tmp/{token}", "t.py"])
    assert command()["python"] == ["-X", "pycache_prefix=/tmp/[secret removed]"]
