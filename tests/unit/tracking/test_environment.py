"""The environment is described without ever failing a run."""

import json
import os
import sys
from pathlib import Path

import pytest

from cas.tracking import environment as module
from cas.tracking.environment import environment, here, host, normalised, packages, variables
from cas.tracking.secrets import REMOVED


def test_it_holds_what_is_compared_and_nothing_of_the_host() -> None:
    found = environment({"torch.deterministic": True})
    assert found["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["platform"]["system"] == os.uname().sysname
    assert found["determinism"] == {"torch.deterministic": True}
    assert found["packages"]["pytest"] == pytest.__version__
    text = json.dumps(found)
    assert str(Path.cwd()) not in text
    assert f'"{os.uname().nodename}"' not in text


def test_packages_are_normalised_sorted_and_the_first_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (folder, name) in enumerate([("a", "My_Pack.age"), ("b", "my-pack-age")]):
        info = tmp_path / folder / f"x-{number}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n\nVersion: of the text\n"
        (info / "METADATA").write_text(text)
    broken = tmp_path / "a" / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_bytes(b"\xff\xfe")
    egg = tmp_path / "b" / "Alone.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Name: Alone\nVersion: 3\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b"), "/nowhere"])
    assert list(packages().items()) == [("alone", "3"), ("my-pack-age", "0")]


@pytest.mark.parametrize(("name", "plain"), [("A_b.C", "a-b-c"), ("x--y__z", "x-y-z")])
def test_package_names_have_one_form(name: str, plain: str) -> None:
    assert normalised(name) == plain


def test_variables_pass_by_an_allow_list_without_paths_and_secrets() -> None:
    environ = {
        "PYTHONHASHSEED": "0",
        "NCCL_DEBUG": "INFO",
        "TORCH_HOME": "/home/me/torch",
        "TF_API_KEY": "abc",
        "WANDB_API_KEY": "abc",
        "PATH": "x",
        "JAX_ODD": "caf\udce9",
    }
    assert variables(environ) == {
        "JAX_ODD": r"caf\udce9",
        "NCCL_DEBUG": "INFO",
        "PYTHONHASHSEED": "0",
        "TF_API_KEY": REMOVED,
    }


def test_a_user_without_a_name_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert module.user() == f"uid {2**31 - 7}"


def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    for name in ("read_text", "is_dir", "open"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(os, "getcwd", refuse)
    monkeypatch.setattr(os, "uname", refuse)
    monkeypatch.setattr(sys, "path", [])
    assert host()["pid"] == os.getpid()
    assert not {"cwd", "host", "os", "cpu", "gpus"} & host().keys()
    assert here().host == here().boot == ""
    assert "platform" not in environment()


def test_a_gpu_program_that_hangs_or_fails_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'Card A\\nCard B\\n'\n")
    program.chmod(0o755)
    assert module._asked(str(program)) == ["Card A", "Card B"]
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(module, "_NVIDIA_SMI_SECONDS", 0.05)
    assert module._tried(lambda: module._asked(str(program))) is None


def test_the_host_is_described_as_plain_data() -> None:
    found = host()
    assert found["host"] == here().host == os.uname().nodename
    assert found["python"] == sys.executable
    assert json.loads(json.dumps(found)) == found
