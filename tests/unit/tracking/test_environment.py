"""The environment is described without ever failing a run."""

import json
import os
import sys
from pathlib import Path

import pytest

from cas.tracking.captured import environment as module
from cas.tracking.captured.environment import environment, here, host, variables
from cas.tracking.captured.hardware import MAX_VALUE, job_variables
from cas.tracking.captured.parts import Capture
from cas.tracking.privacy.secrets import REMOVED


class Framework:
    """A module that knows a framework in use."""

    @staticmethod
    def determinism() -> dict[str, object]:
        return {"deterministic": True}

    @staticmethod
    def versions() -> dict[str, object]:
        return {"torch": "2.0", "cuda": "12.1"}


class Broken:
    """One whose framework answers nothing."""

    @staticmethod
    def determinism() -> dict[str, object]:
        raise RuntimeError


def test_it_holds_what_is_compared_and_nothing_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("version = 1\n")
    found = environment([Framework(), Broken()], top=tmp_path)
    assert found["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["platform"]["system"] == os.uname().sysname
    assert found["determinism"] == {"deterministic": True}
    assert found["frameworks"] == {"torch": "2.0", "cuda": "12.1"}
    assert list(found["lock_files"]) == ["uv.lock"]
    assert "not_captured" not in found
    text = json.dumps(found)
    assert str(Path.cwd()) not in text
    assert str(tmp_path) not in text
    assert f'"{os.uname().nodename}"' not in text


def test_the_blas_of_a_loaded_numpy_is_told() -> None:
    import numpy  # noqa: F401

    assert environment()["blas"]["name"]


def test_what_is_switched_off_is_named_and_missing(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("")
    off = Capture(environment=False, packages=False, variables=False, hardware=False)
    assert environment([Framework()], off, tmp_path) == {
        "not_captured": ["environment", "packages", "variables"]
    }
    found = host(off)
    assert found["not_captured"] == ["hardware", "variables"]
    assert "job" not in found
    assert environment(parts=Capture(packages=False))["not_captured"] == ["packages"]


def test_variables_pass_by_an_allow_list_without_paths_and_secrets() -> None:
    environ = {
        "PYTHONHASHSEED": "0",
        "NCCL_DEBUG": "INFO",
        "TORCH_HOME": "/home/me/torch",
        "TF_API_KEY": "abc",
        "WANDB_API_KEY": "abc",
        "PATH": "x",
        "JAX_ODD": "caf\udce9",
        "NUMBA_NUM_THREADS": "2",
        "LC_NUMERIC": "C",
        "PYTORCH_CUDA_ALLOC_CONF": "backend:native",
        "SLURM_JOB_ID": "7",
    }
    assert variables(environ) == {
        "JAX_ODD": r"caf\udce9",
        "LC_NUMERIC": "C",
        "NCCL_DEBUG": "INFO",
        "NUMBA_NUM_THREADS": "2",
        "PYTHONHASHSEED": "0",
        "PYTORCH_CUDA_ALLOC_CONF": "backend:native",
        "TF_API_KEY": REMOVED,
    }


def test_what_differs_between_equal_jobs_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JWT", "ey" + "x" * 20)
    monkeypatch.setenv("SLURM_API_TOKEN", "abc")
    monkeypatch.setenv("RANK", "3")
    job = host()["job"]
    assert (job["SLURM_JOB_ID"], job["RANK"], job["SLURM_API_TOKEN"]) == ("7", "3", REMOVED)
    assert "SLURM_JOB_ID" not in environment()["variables"]


def test_a_user_without_a_name_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert module.user() == f"uid {2**31 - 7}"


def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    for name in ("read_text", "is_dir", "is_file", "open", "cwd"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(os, "getcwd", refuse)
    monkeypatch.setattr(os, "uname", refuse)
    assert host()["pid"] == os.getpid()
    assert not {"cwd", "host", "os"} & host().keys()
    assert here().host == here().boot == ""
    assert not {"platform", "lock_files"} & environment(top=Path("/")).keys()


def test_the_host_is_described_as_plain_data() -> None:
    found = host()
    assert found["host"] == here().host == os.uname().nodename
    assert found["python"] == sys.executable
    assert json.loads(json.dumps(found)) == found


def test_no_half_of_a_secret_is_left_where_a_long_value_is_cut() -> None:
    token = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
    long = "x " * 2040 + token
    for found in (variables({"NCCL_X": long}), job_variables({"SLURM_X": long})):
        (value,) = found.values()
        assert len(value) <= MAX_VALUE
        assert token[:10] not in value
