"""The golden cuts of docs/format/cutting.md are those that the tests hold."""

import re
from pathlib import Path

from tests.unit.codec.test_chunker import NOISE_CUTS, TEXT_CUTS

PAGE = Path(__file__).parents[3] / "docs" / "format" / "cutting.md"


def test_the_page_on_cutting_has_the_golden_cuts() -> None:
    blocks = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert [[int(word) for word in block.split()] for block in blocks] == [NOISE_CUTS, TEXT_CUTS]
