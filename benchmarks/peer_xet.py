"""hf-xet without a network, run by the interpreter of the peers: `add STORE PATH`, `restore …`.

hf-xet keeps no names: a list of name, hash and size stands beside its store.
"""

import json
import sys
from pathlib import Path

import hf_xet

LIST = "names.json"


def add(store: Path, source: Path) -> None:
    files = [source] if source.is_file() else [p for p in sorted(source.rglob("*")) if p.is_file()]
    commit = hf_xet.XetSession().new_upload_commit(endpoint=f"local://{store}/xet")
    for path in files:
        commit.start_upload_file(str(path), sha256=hf_xet.SKIP_SHA256)
    done = commit.wait_to_finish().uploads.values()
    known = {one.tracking_name: (one.xet_info.hash, one.xet_info.file_size) for one in done}
    names = {str(path.relative_to(source.parent)): known[str(path)] for path in files}
    (store / LIST).write_text(json.dumps(names))


def restore(store: Path, target: Path) -> None:
    session = hf_xet.XetSession()
    with session.new_file_download_group(endpoint=f"local://{store}/xet") as group:
        for name, (hash_, size) in json.loads((store / LIST).read_text()).items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            group.start_download_file(hf_xet.XetFileInfo(hash_, size), str(target / name))


if __name__ == "__main__":
    {"add": add, "restore": restore}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
