"""A journal gives back what was appended, whatever its end suffered."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptionError
from cas.tracking.journals.journal import read_journal
from cas.tracking.journals.journalwriter import JournalWriter
from tests.unit.tracking.test_journal import HEADER

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
BATCHES = st.lists(st.lists(VALUES, max_size=3), max_size=4)


@given(batches=BATCHES, data=st.data())
def test_a_cut_or_flipped_journal_is_a_beginning_of_the_whole(
    batches: list[list[object]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        writer = JournalWriter.create(path, HEADER)
        start = writer.position
        ends = [writer.append(batch) for batch in batches]
        writer.close()
        whole = read_journal(path)
        assert list(whole.frames) == [value for batch in batches for value in batch]
        assert not whole.torn
        assert set(ends) <= {start, *whole.positions}

        raw = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(raw) - 1))
        if data.draw(st.booleans()):
            del raw[place:]
        else:
            raw[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(raw)
        if place < start:
            try:
                read_journal(path)
            except CorruptionError:
                return
            raise AssertionError("a damaged header went through")
        harmed = read_journal(path)
        intact = [end for end in whole.positions if end <= place]
        assert harmed.frames == whole.frames[: len(intact)]
        assert harmed.positions == tuple(intact)
