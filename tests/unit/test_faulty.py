"""The fakes of the medium count what a command does, and nothing else."""

from pathlib import Path

from cas.backend.files import OPS
from tests.support.faulty import RecordingOps, everywhere


def test_what_was_opened_before_is_closed_and_not_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    left = OPS.open_read(str(tmp_path / "a"))
    ops = RecordingOps()
    with everywhere(ops):
        own = OPS.open_read(str(tmp_path / "a"))
        OPS.close(left)
        OPS.close(own)
    assert [name for name, _ in ops.calls] == ["open_read", "close"]
    assert not ops.opened
