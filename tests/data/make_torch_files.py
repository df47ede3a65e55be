#!/usr/bin/env python3
"""Writes tests/data/fixtures/torch/: small files of torch.save and torch.jit.save.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/data/make_torch_files.py
"""
import os
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent / "fixtures" / "torch"


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(12.0).reshape(4, 3) / 8)
        self.offset = torch.nn.Parameter(torch.arange(3.0).half() - 1)

    def forward(self, x):
        return x @ self.weight.t()


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(Inner())
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.register_buffer("count", torch.tensor([7, 300]))

    def forward(self, x):
        return self.inner(x) * self.scale


class Calls:
    def __reduce__(self):
        return os.system, ("true",)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = Model()
    state = model.state_dict()
    torch.save(state, FOLDER / "state_dict.pt")
    torch.save(state, FOLDER / "protocol_4.pt", pickle_protocol=4)
    torch.save(state, FOLDER / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({k: torch.nn.Parameter(v, v.is_floating_point()) for k, v in state.items()}, FOLDER / "parameters.pt")
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}, "optimizer": optimizer}, FOLDER / "checkpoint.pt")
    torch.jit.script(model).save(FOLDER / "script.pt")
    whole = torch.arange(12.0)
    torch.save({"transposed": whole.reshape(3, 4).t(), "stepped": whole[2:9:3], "empty": whole[:0].reshape(0, 3),
                "bfloat16": whole[:2].bfloat16(), "shared": whole[4:6]}, FOLDER / "views.pt")  # fmt: skip
    torch.save({"repeated": torch.zeros(1).expand(5)}, FOLDER / "repeated.pt")
    torch.save({"weight": torch.zeros(2), "more": Calls()}, FOLDER / "calls.pt")


if __name__ == "__main__":
    main()
