"""The examples of the page on metrics work, one after the other."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.runs import CAS, python, run

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BLOCK = re.compile(r"^```(?P<kind>python|sh)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_examples_work(tmp_path: Path) -> None:
    blocks = [(found["kind"], found["text"]) for found in BLOCK.finditer(PAGE.read_text("utf-8"))]
    code = "\n".join(text for kind, text in blocks if kind == "python")
    checks = (
        "assert loss.best('min') == (99, 0.04)\n"
        "assert loss.along('epoch')[0].tolist() == [0, 1, 2]\n"
        "assert set(cas.read_metrics('mnist/first')) == {'loss', 'lr', 'perplexity'}\n"
    )
    (tmp_path / "train.py").write_text(code + checks)
    said = python(tmp_path, "train.py")
    assert "data: shard 7 is missing" in said.stderr
    lines = [
        line for kind, text in blocks if kind == "sh" for line in text.splitlines() if line.strip()
    ]
    assert len(lines) == 6
    for line in lines:
        word, *rest = shlex.split(line, comments=True)
        assert word == "cas"
        if "--system" not in rest:  # the run was shorter than it takes to have some
            run(tmp_path, CAS, *rest)
    assert (tmp_path / "metrics.csv").read_text().startswith("metric,step,value,time\nloss,0,4.0,")
