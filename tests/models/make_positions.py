#!/usr/bin/env python3
"""Writes tests/models/fixtures/positions.safetensors: a table of positions, and what open_clip's resize_pos_embed makes of it.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/models/make_positions.py
"""
from pathlib import Path
from types import SimpleNamespace

import torch
from open_clip.model import resize_pos_embed
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parent / "fixtures"


def main():
    table = torch.randn(1 + 4 * 4, 48, generator=torch.Generator().manual_seed(0))
    tensors = {"4": table}
    for name, grid in (("3", (3, 3)), ("7", (7, 7)), ("3x6", (3, 6))):
        state = {"visual.positional_embedding": table.clone()}
        resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid)))
        tensors[name] = state["visual.positional_embedding"].contiguous()
    FOLDER.mkdir(exist_ok=True)
    save_file(tensors, FOLDER / "positions.safetensors")


if __name__ == "__main__":
    main()
