"""The tutorial works: its commands are run in order, in an empty folder.

A block ```` ```sh ```` is run and has to exit with 0, or with N for ```` ```sh exit N ````. A block
```` ```python ```` is written to the file that its first line names. Each line of a block
```` ```text stable ```` has to be in what the commands before it have printed; other text is not
looked at, because hashes and times are new each time.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks, squeezed

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


class Reader:
    """Somebody who follows a page to the letter, from an empty folder on."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.here = folder / "work"
        self.here.mkdir()
        self.printed: list[str] = []
        self.ran = 0

    def follow(self, block: Block) -> None:
        """Do what one block says."""
        match block.language:
            case "sh":
                self._run(block)
            case "python":
                name = block.text.partition("\n")[0].removeprefix("#").strip()
                (self.here / name).write_text(block.text, encoding="utf-8")
            case "text" if "stable" in block.words:
                for line in squeezed(block.text):
                    said = "\n".join(self.printed)
                    assert any(line in one for one in self.printed), f"not in:\n{said}\n> {line}"

    def _run(self, block: Block) -> None:
        place = self.home / "place"
        script = f"{block.text}\npwd > {place}\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.here,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        expected = int(block.words[1]) if block.words[:1] == ("exit",) else 0
        assert done.returncode == expected, (
            f"{block.text}\nexited with {done.returncode}\n{done.stdout}"
        )
        self.printed = squeezed(done.stdout)
        self.ran += 1
        if place.exists():
            self.here = Path(place.read_text().strip())

    def _environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("LANG", "LC_ALL", "TZ") if key in os.environ}
        tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        who = {
            f"GIT_{role}_{part}": "ada"
            for role in ("AUTHOR", "COMMITTER")
            for part in ("NAME", "EMAIL")
        }
        return kept | who | {"PATH": tools, "HOME": str(self.home)}


@pytest.mark.slow
def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for block in blocks(TUTORIAL.read_text(encoding="utf-8")):
        reader.follow(block)
    assert reader.ran > 10


def test_a_command_that_fails_and_a_line_that_is_missing_are_noticed(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.follow(Block("sh", (), "echo  one   two; cd .. ; false || true"))
    reader.follow(Block("text", ("stable",), "one two\n"))
    reader.follow(Block("sh", ("exit", "3"), "exit 3"))
    assert reader.here == tmp_path
    with pytest.raises(AssertionError, match="exited with 1"):
        reader.follow(Block("sh", (), "false"))
    with pytest.raises(AssertionError, match="> three"):
        reader.follow(Block("text", ("stable",), "three\n"))
