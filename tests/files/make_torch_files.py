#!/usr/bin/env python3
"""Writes tests/files/fixtures/torch/: small files of torch.save and torch.jit.save.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/files/make_torch_files.py
"""
import argparse
import collections
import datetime
import enum
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
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


class Norm(torch.nn.Module):
    """Has what a state_dict leaves out: a buffer that is not persistent, and a parameter that is None."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.register_parameter("bias", None)
        self.register_buffer("scratch", torch.ones(3), persistent=False)


class Colour(enum.Enum):
    RED = 1


class Cyclic:
    def __init__(self):
        self.parent = self
        self.children = {"me": self, "tensor": torch.ones(1)}


class Options(dict):
    pass


class OnDevice:
    """Saved as PyTorch saves a tensor of a device without storages (XLA)."""

    def __init__(self, array, dtype):
        self.array, self.dtype = array, dtype

    def __reduce__(self):
        return torch._utils._rebuild_device_tensor_from_numpy, (self.array, self.dtype, "cpu", False)


class Calls:
    def __reduce__(self):
        return os.system, ("true",)


def without_source(_):
    raise OSError("source files, and where they lie, are left out of the fixtures")


def zip_again(path, target, compression):
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w", compression) as again:
        for name in archive.namelist():
            again.writestr(name, b"{}" if name.endswith("model.json") else archive.read(name))


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.serialization.get_source_lines_and_file = without_source
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

    small = {"weight": torch.arange(2.0)}
    beside = {"scalar": np.float64(1), "array": np.arange(3), "random": np.random.RandomState(0), "args": argparse.Namespace(lr=0.1, path=Path("a")),
              "when": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), "colour": Colour.RED, "device": torch.device("cuda:0"),
              "dtype": torch.float16, "size": torch.Size([2, 3]), "counter": collections.Counter("abc"), "bytes": b"\x00\xff", "array of bytes": bytearray(b"a"),
              "set": {1}, "frozen": frozenset({1}), "complex": 1 + 2j, "long": 2**100, "cyclic": Cyclic(), "options": Options(a=1), "class": Inner, "function": print,
              "default": collections.defaultdict(list, a=[1]), "queue": collections.deque([1]), "layout": torch.strided, "optimizer": torch.optim.SGD([torch.ones(1)], 0.1)}  # fmt: skip
    for protocol in (2, 4, 5):
        torch.save({**beside, "state_dict": small}, FOLDER / f"beside_{protocol}.pt", pickle_protocol=protocol)
    for protocol in (3, 5):
        torch.save({**beside, "state_dict": state}, FOLDER / f"legacy_{protocol}.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=False)

    attributes = torch.nn.Parameter(torch.arange(2.0))
    attributes.tensor_model_parallel = True
    attributes.colour = Colour.RED
    tensor = torch.arange(2.0)
    tensor.tag = 1
    torch.save({"parameter": attributes, "tensor": tensor, "buffer": torch.nn.Buffer(torch.arange(2.0))}, FOLDER / "attributes.pt")
    rows = np.arange(200, 206, dtype="f4").reshape(2, 3) / 7
    for protocol in (2, 5):
        torch.save({"rows": OnDevice(rows, torch.float32), "columns": OnDevice(np.asfortranarray(rows), torch.float32), "bfloat16": OnDevice(rows, torch.bfloat16),
                    "count": OnDevice(np.array(300), torch.int64), "none": OnDevice(np.zeros((0, 3), "f4"), torch.float32),
                    "swapped": OnDevice(rows.astype(">f4"), torch.float32)}, FOLDER / f"device_{protocol}.pt", pickle_protocol=protocol)  # fmt: skip
    sparse = torch.eye(2).to_sparse()
    kinds = {"coo": sparse, "csr": torch.eye(2).to_sparse_csr(), "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
             "meta": torch.ones(2, device="meta"), "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
             "complex": torch.ones(1, dtype=torch.complex128), "conjugate": torch.ones(1, dtype=torch.complex64).conj(),
             "array": np.arange(3), "lazy": torch.nn.UninitializedParameter()}  # fmt: skip
    torch.save({"state_dict": {**small, **kinds}}, FOLDER / "kinds.pt")
    torch.save({"state_dict": {**small, **kinds}}, FOLDER / "legacy_kinds.pt", _use_new_zipfile_serialization=False)
    torch.save({"text_projection": sparse, "logit_scale": torch.ones((), device="meta"), "positional_embedding": torch.ones(9, 32).to(torch.float8_e4m3fn),
                "extra": sparse, "array": np.arange(3)}, FOLDER / "unreadable.pt")  # fmt: skip
    types = (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.float64, torch.int8, torch.int16, torch.int32, torch.bool)
    torch.save({str(t).split(".")[1]: torch.arange(2.0).to(t) for t in types}, FOLDER / "types.pt")

    whole_model = torch.nn.ModuleDict({"norm": Norm(), "again": Norm()})
    whole_model["again"] = whole_model["norm"]
    torch.save(whole_model, FOLDER / "module.pt")
    torch.save({"epoch": 1, "model": whole_model}, FOLDER / "legacy_module.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": small, "state_dict_ema": {"weight": torch.ones(2)}, "optimizer": optimizer, "ema": {"sparse": sparse}}, FOLDER / "ema.pt")
    torch.save([small, {"weight": torch.ones(2)}], FOLDER / "list.pt")
    zip_again(FOLDER / "state_dict.pt", FOLDER / "rezipped.pt", zipfile.ZIP_DEFLATED)
    np.savez(FOLDER / "arrays.npz", weight=np.ones(2))
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(torch.export.export(Inner(), (torch.ones(1, 3),)), Path(folder) / "program.pt2")
        zip_again(Path(folder) / "program.pt2", FOLDER / "program.pt2", zipfile.ZIP_STORED)


if __name__ == "__main__":
    main()
