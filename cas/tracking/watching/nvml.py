"""NVIDIA's GPUs, by the library that comes with their driver (NVML): no package is needed for it.

Six of its functions, whose form has been the same since 2012 (`_v2`).
"""

import ctypes
import os
from typing import Final, Self

LIBRARY: Final = "libnvidia-ml.so.1"
CELSIUS: Final = 0  # NVML_TEMPERATURE_GPU


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class Gpus:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES, where it gives numbers, names."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._handles: dict[int, ctypes.c_void_p] = {}
        count = ctypes.c_uint()
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for number in _visible(count.value):
            handle = ctypes.c_void_p()
            if not library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
                self._handles[number] = handle

    @classmethod
    def open(cls) -> Self | None:
        """Return them, None where there is no driver."""
        try:
            library = ctypes.CDLL(LIBRARY)
            return None if library.nvmlInit_v2() else cls(library)
        except (OSError, AttributeError):
            return None

    def sample(self) -> dict[str, float]:
        """Return use, memory, power and temperature of each; what one does not tell is missing."""
        found: dict[str, float] = {}
        for number, handle in self._handles.items():
            of = {f"gpu_{number}_{name}": value for name, value in self._one(handle).items()}
            found |= of
        return found

    def close(self) -> None:
        """Let go of the driver."""
        self._library.nvmlShutdown()

    def _one(self, handle: ctypes.c_void_p) -> dict[str, float]:
        found: dict[str, float] = {}
        use, memory = _Utilization(), _Memory()
        power, heat = ctypes.c_uint(), ctypes.c_uint()
        ask = self._library
        if not ask.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(use)):
            found["percent"] = float(use.gpu)
        if not ask.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
            found["memory_bytes"] = float(memory.used)
            found["memory_percent"] = 100 * memory.used / max(memory.total, 1)
        if not ask.nvmlDeviceGetPowerUsage(handle, ctypes.byref(power)):
            found["watts"] = power.value / 1000
        if not ask.nvmlDeviceGetTemperature(handle, CELSIUS, ctypes.byref(heat)):
            found["celsius"] = float(heat.value)
        return found


def _visible(count: int) -> list[int]:
    """Return the numbers of the GPUs that this process may use."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if all(word.strip().isdecimal() for word in told):
        return [number for number in map(int, told) if number < count]
    return list(range(count))
