"""LocalBackend keeps the promises."""

from pathlib import Path

import pytest

from cas.backend.local import LocalBackend
from tests.contract.backend import BackendContract, WholeBackend


class TestLocalBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> WholeBackend:
        return LocalBackend(tmp_path)
