"""ZipNN over the bytes of files, run by the interpreter of the peers: `add STORE PATH`, `restore`.

ZipNN is a codec, not a store. Each file goes through it as one stream of float32, or of bfloat16
where its name says so; it has no better way for a whole file.
"""

import sys
from pathlib import Path

from zipnn import ZipNN


def codec(path: Path) -> ZipNN:
    half = "bf16" in path.name or "close" in str(path) or "16" in path.parent.name
    return ZipNN(bytearray_dtype="bfloat16" if half else "float32", input_format="byte", threads=2)


def add(store: Path, source: Path) -> None:
    for path in (one for one in sorted(source.rglob("*")) if one.is_file()):
        target = store / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(codec(path).compress(bytearray(path.read_bytes())))


def restore(store: Path, target: Path) -> None:
    for path in (one for one in sorted(store.rglob("*")) if one.is_file()):
        place = target / "data" / path.relative_to(store)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(codec(path).decompress(path.read_bytes()))


if __name__ == "__main__":
    {"add": add, "restore": restore}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
