"""MemoryBackend keeps the promises."""

import pytest

from cas.backend.memory import MemoryBackend
from tests.contract.backend import BackendContract, WholeBackend


class TestMemoryBackend(BackendContract):
    @pytest.fixture
    def backend(self) -> WholeBackend:
        return MemoryBackend()

    def test_an_unsealed_value_is_not_seen(self) -> None:
        backend = MemoryBackend()
        backend.create("packs/a").write([b"one"])
        assert backend.size("packs/a") is None
        assert list(backend.scan("")) == []
