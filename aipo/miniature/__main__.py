"""Makes the base model's weights in the package again: `python -m aipo.miniature`, in a checkout."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

from aipo.miniature.base_model import MiniatureModel
from aipo.miniature.shipped import FOLDER, vocabulary_sha256

CONFIG = Path(__file__).parents[2] / "conf" / "model" / "miniature.yaml"


def main() -> None:
    """Train the default base model here and put it into the package."""
    import torch
    import yaml

    node = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    settings = {key: value for key, value in node.items() if key not in ("_target_", "retrain")}
    with tempfile.TemporaryDirectory() as folder:
        counts = MiniatureModel(**settings, retrain=True).build(Path(folder))
        shutil.copyfile(Path(folder) / "model.safetensors", FOLDER / "base.safetensors")
    described = {
        "settings": settings,
        "sha256": sha256((FOLDER / "base.safetensors").read_bytes()).hexdigest(),
        "vocabulary_sha256": vocabulary_sha256(),
        "counts": counts,
        "trained_on": {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        },
    }
    (FOLDER / "base.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
