#!/usr/bin/env python3
"""make_torch_goldens.py: runs the ```python blocks of .docs/pages/pytorch.md and writes their results to
torch_goldens.json, beside a digest of each block.

Needs the packages of tests/parity (tests/parity/venv.sh): .venv-parity/bin/python tests/docs/make_torch_goldens.py
"""
import json
import os
import pathlib
import shutil
import tempfile

import open_clip
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss
from open_clip_train.scheduler import cosine_lr
from PIL import Image
from safetensors.torch import load_file, save_file

from pages import FIXTURES, ROOT
from pytorch import PAGE, digest, pairs

GOLDENS = pathlib.Path(__file__).resolve().with_name("torch_goldens.json")
NAMES = {"open_clip": open_clip, "torch": torch, "F": F, "ClipLoss": ClipLoss, "SigLipLoss": SigLipLoss,
         "cosine_lr": cosine_lr, "Image": Image, "load_file": load_file, "save_file": save_file}


def numbers(result):
    return torch.as_tensor(result).to(torch.float64).flatten().tolist()


def main():
    found = pairs(PAGE)
    snippets = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, fixture in FIXTURES.items():
            shutil.copy(ROOT / fixture, pathlib.Path(folder) / name)
        os.chdir(folder)
        for title, (python, _) in found.items():
            scope = dict(NAMES)
            exec(compile(python, title, "exec"), scope)
            snippets[title] = {"digest": digest(python), "result": numbers(scope["result"])}
    versions = {"torch": torch.__version__, "open_clip": open_clip.__version__}
    rows = [f"  {json.dumps(title)}: {json.dumps(value)}" for title, value in {"versions": versions, **snippets}.items()]
    GOLDENS.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    print(f"{len(snippets)} results in {GOLDENS}")


if __name__ == "__main__":
    main()
