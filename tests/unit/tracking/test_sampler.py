"""System metrics are what the files of the system say; what is not there is left out."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.tracking.watching import nvml, sampler
from cas.tracking.watching.nvml import Gpus
from cas.tracking.watching.sampler import Sampler
from tests.support.runs import eventually


def system(folder: Path, *, idle: int, busy: int, read: int) -> Path:
    """A /proc of our own."""
    own = folder / "self"
    own.mkdir(parents=True, exist_ok=True)
    (folder / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2\n")
    (folder / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n")
    (own / "statm").write_text("900 3 1 1 0 1 0\n")
    (own / "io").write_text(f"rchar: 5\nread_bytes: {read}\nwrite_bytes: 0\n")
    (own / "cgroup").write_text("0::/job\n")
    return folder


def test_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "CGROUPS", tmp_path / "none")
    proc = system(tmp_path, idle=100, busy=100, read=0)
    told = Sampler(tmp_path, proc=proc)
    first = told.sample(10.0)
    assert "cpu_percent" not in first  # a share of the time needs two looks
    assert first["memory_used_bytes"] == 600 * 1024
    assert first["memory_percent"] == pytest.approx(60)
    assert first["process_memory_bytes"] % 3 == 0
    assert first["disk_free_bytes"] > 0
    assert 0 <= first["disk_percent"] <= 100
    system(tmp_path, idle=125, busy=175, read=4000)
    second = told.sample(12.0)
    assert second["cpu_percent"] == pytest.approx(75)
    assert second["process_read_bytes_per_second"] == pytest.approx(2000)
    assert second["process_cpu_percent"] >= 0


def test_memory_counts_against_the_limit_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc = system(tmp_path / "proc", idle=1, busy=1, read=0)
    monkeypatch.setattr(sampler, "CGROUPS", tmp_path / "groups")
    group = tmp_path / "groups" / "job"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("204800\n")
    (group / "memory.current").write_text("51200\n")
    told = Sampler(tmp_path, proc=proc)
    assert told.sample(0.0)["memory_percent"] == pytest.approx(25)
    (group / "memory.max").write_text("max\n")
    assert told.sample(1.0)["memory_percent"] == pytest.approx(60)


def test_a_system_that_tells_nothing_costs_nothing(tmp_path: Path) -> None:
    told = Sampler(tmp_path / "gone", proc=tmp_path / "nothing")
    assert told.sample(0.0) == {}
    assert told.free_bytes() is None
    told.close()


def test_this_system_tells_something() -> None:
    told = Sampler(Path.cwd())
    known = {"cpu_percent", "memory_percent", "process_memory_bytes", "disk_free_bytes"}
    seen: set[str] = set()

    def look() -> bool:
        seen.update(told.sample(0.0))
        return known <= seen

    eventually(look)  # the system's clock ticks slowly
    told.close()


class Library:
    """An NVML with two GPUs, the second of which does not say what it draws."""

    def __init__(self) -> None:
        self.shut = False

    def nvmlDeviceGetCount_v2(self, count: "ctypes._Pointer[ctypes.c_uint]") -> int:  # noqa: N802
        count._obj.value = 2  # type: ignore[attr-defined]
        return 0

    def nvmlDeviceGetHandleByIndex_v2(  # noqa: N802
        self, number: int, handle: "ctypes._Pointer[ctypes.c_void_p]"
    ) -> int:
        handle._obj.value = number + 1  # type: ignore[attr-defined]
        return 0

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut = True

    def __getattr__(self, name: str) -> Callable[..., int]:
        def answer(handle: ctypes.c_void_p, *rest: object) -> int:
            target = rest[-1]._obj  # type: ignore[attr-defined]
            if name == "nvmlDeviceGetMemoryInfo":
                target.total, target.used = 1000, 100 * (handle.value or 0)
            elif name == "nvmlDeviceGetUtilizationRates":
                target.gpu = 50 + (handle.value or 0)
            elif handle.value == 2:
                return 3  # not supported
            else:
                target.value = 70_000 if name == "nvmlDeviceGetPowerUsage" else 40
            return 0

        return answer


def test_gpus_say_what_they_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    library = Library()
    gpus = Gpus(library)  # type: ignore[arg-type]
    assert gpus.sample() == {
        "gpu_0_percent": 51, "gpu_0_memory_bytes": 100, "gpu_0_memory_percent": 10,
        "gpu_0_watts": 70, "gpu_0_celsius": 40,
        "gpu_1_percent": 52, "gpu_1_memory_bytes": 200, "gpu_1_memory_percent": 20,
    }  # fmt: skip
    gpus.close()
    assert library.shut
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert set(Gpus(library).sample()) == {  # type: ignore[arg-type]
        "gpu_1_percent", "gpu_1_memory_bytes", "gpu_1_memory_percent",
    }  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f2a")
    assert len(Gpus(library).sample()) == 8  # type: ignore[arg-type]


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnothing-of-that-name.so.1")
    assert Gpus.open() is None
