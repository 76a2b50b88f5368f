"""detect-secrets as its users call it, in a venv of its own; prints what it found as JSON.

    .bench/secrets/bin/python benchmarks/peer_secrets.py PLUGINS TEXTS CODE

PLUGINS is `all`, `no-entropy`, or `strings` for all of them on each line by itself; TEXTS and CODE
are files to scan. Of the first comes what was detected in it, with the number of the line; of the
second the CPU seconds that scanning it took.
"""

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENTROPY = ("Base64HighEntropyString", "HexHighEntropyString")


@contextlib.contextmanager
def settings(plugins: str) -> Iterator[None]:
    """Use the plugins that come with it, or those of them that know a form."""
    found: Any = importlib.import_module("detect_secrets.settings")
    with found.default_settings():
        names = [name for name in found.get_settings().plugins if name not in ENTROPY]
        if plugins != "no-entropy":
            yield
            return
        with found.transient_settings({"plugins_used": [{"name": name} for name in names]}):
            yield


def main() -> None:
    """Detect, and print."""
    plugins, texts, code = sys.argv[1:]
    scan: Any = importlib.import_module("detect_secrets.core.scan")
    with settings(plugins):
        if plugins == "strings":
            lines = Path(texts).read_text().splitlines()
            found = [
                (n, one.secret_value) for n, it in enumerate(lines, 1) for one in scan.scan_line(it)
            ]
        else:
            found = [(one.line_number, one.secret_value) for one in scan.scan_file(texts)]
        began = time.process_time()
        list(scan.scan_file(code))
        seconds = time.process_time() - began
    print(json.dumps({"found": found, "seconds": seconds}))


if __name__ == "__main__":
    main()
