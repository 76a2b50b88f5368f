"""fsck tells damage to a journal from the torn end that a crash leaves."""

from pathlib import Path

import pytest

from cas.repo.check.packcheck import ERROR, WARNING
from cas.tracking.journals import journalcheck
from cas.tracking.journals.journal import Header, placed, to_frame
from tests.support.builders import repository, set_ref
from tests.support.specimen import OPEN_RUN, Specimen, build


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    return build(tmp_path)


def journal(specimen: Specimen) -> Path:
    (key,) = specimen.frames
    return specimen.path / key


def told(specimen: Specimen) -> list[tuple[str, str]]:
    return [(found.severity, found.detail) for found in journalcheck.findings(specimen.open())]


def test_a_whole_one_is_nothing_to_tell_of(specimen: Specimen) -> None:
    assert told(specimen) == []


def test_a_repository_without_runs_is_fine(tmp_path: Path) -> None:
    assert list(journalcheck.findings(repository(tmp_path))) == []


def test_a_torn_end_is_a_warning(specimen: Specimen) -> None:
    path = journal(specimen)
    path.write_bytes(path.read_bytes()[:-3])
    ((severity, detail),) = told(specimen)
    assert severity == WARNING
    assert "a crash left them" in detail


def test_damage_in_the_middle_is_an_error_that_says_where(specimen: Specimen) -> None:
    path = journal(specimen)
    raw = bytearray(path.read_bytes())
    raw[-200] ^= 1
    path.write_bytes(bytes(raw))
    ((severity, detail),) = told(specimen)
    assert severity == ERROR
    assert "damaged at byte" in detail


def test_one_that_ends_before_what_a_commit_includes_is_an_error(specimen: Specimen) -> None:
    path = journal(specimen)
    raw = path.read_bytes()
    header = to_frame(Header.to_value(specimen.frames[next(iter(specimen.frames))][0]))
    assert raw.startswith(header)
    path.write_bytes(header)
    ((severity, detail),) = told(specimen)
    assert severity == ERROR
    assert f"and it ends at byte {len(header)}" in detail


def test_one_that_is_gone_is_an_error_while_its_run_is_open(specimen: Specimen) -> None:
    journal(specimen).unlink()
    ((severity, detail),) = told(specimen)
    assert (severity, "it is missing" in detail) == (ERROR, True)
    set_ref(specimen.open(), f"open/{OPEN_RUN}", None)
    assert told(specimen) == []


def test_one_of_another_run_is_an_error(specimen: Specimen) -> None:
    path = journal(specimen)
    path.rename(path.with_name(f"{b'x'.hex() * 16}.journal"))
    severities = [severity for severity, _ in told(specimen)]
    assert severities == [ERROR, ERROR]


def test_what_has_no_header_is_an_error(specimen: Specimen) -> None:
    journal(specimen).write_bytes(b"")
    assert {severity for severity, _ in told(specimen)} == {ERROR}


def test_frames_that_make_no_sense_are_an_error(specimen: Specimen) -> None:
    path = journal(specimen)
    path.write_bytes(path.read_bytes() + to_frame({"t": "points"}))
    ((severity, detail),) = told(specimen)
    assert (severity, "damaged" in detail) == (ERROR, True)


def test_a_frame_that_is_gone_is_an_error_that_says_where(specimen: Specimen) -> None:
    path = journal(specimen)
    raw = path.read_bytes()
    first = placed([{"t": "params", "params": {"a": 1}}], len(raw))
    second = placed([{"t": "params", "params": {"a": 2}}], len(raw) + len(first))
    path.write_bytes(raw + first + second)
    assert told(specimen) == []
    path.write_bytes(raw + second)
    ((severity, detail),) = told(specimen)
    assert severity == ERROR
    assert f"damaged at byte {len(raw)}" in detail


def test_one_that_grows_is_alive(specimen: Specimen, monkeypatch: pytest.MonkeyPatch) -> None:
    path = journal(specimen)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    monkeypatch.setattr(journalcheck, "sleep", lambda _: path.write_bytes(whole))
    assert told(specimen) == []
