"""A peer's side of benchmarks/compare.py: one process, one peer, one setting.

    compare_peers.py SETTING FOLDER THREADS         answers the lines on its standard input until it ends
    compare_peers.py SETTING FOLDER THREADS first   the first image embedding, then the peak of its memory; it waits for the end of its input

It says "ready" in a line (tandem's side: the kernels it chose), and answers each request in one line:
    time WORK BATCH BEGIN REPEATS    milliseconds of each repeat; captions are those of batches BEGIN, BEGIN + 1, ...
    embed WORK                       nothing; FOLDER/found then has the embeddings of all images, or as many captions
    loss                             that of the last training step
WORK is image, text (77 tokens), text_padded (as many as the longest caption of the batch has), train or train_padded.
Everything is imported where it is used: a process's time to its first embedding is measured, too.
"""

import contextlib
import os
import sys
import time
from pathlib import Path


class PyTorch:
    def __init__(self, folder, threads, precision, compiled=False, autocast=False):
        import torch
        from compare_models import checkpoint, towers

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.torch = torch
        model = checkpoint(folder)
        self.type = torch.bfloat16 if precision == "bf16" and not autocast else torch.float32
        model = model.to(self.type)
        if precision == "int8":
            model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        self.mode = contextlib.nullcontext if not autocast else lambda: torch.autocast("cpu", torch.bfloat16)
        self.image_tower, self.text_tower = towers(model)
        if compiled:
            # Lengths of captions turn dynamic at the second one; batches are compiled for one by one.
            self.image_tower = torch.compile(self.image_tower, dynamic=False, options={"freezing": True})
            self.text_tower = torch.compile(self.text_tower, options={"freezing": True})

    def image(self, images):
        with self.torch.inference_mode(), self.mode():
            return self.image_tower(self.torch.from_numpy(images).to(self.type)).float().numpy()

    def text(self, ids, padded):
        with self.torch.inference_mode(), self.mode():
            return self.text_tower(self.torch.from_numpy(ids)).float().numpy()


class PyTorchTraining:
    """A step as open_clip_train makes it: its loss, its groups of parameters, its clamp of the logit scale."""

    def __init__(self, folder, threads, compiled=False, autocast=False):
        import torch
        from compare_models import checkpoint, towers
        from open_clip.loss import ClipLoss

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.torch = torch
        self.model = checkpoint(folder).train()
        image, text = towers(self.model)
        loss = ClipLoss()
        self.mode = contextlib.nullcontext if not autocast else lambda: torch.autocast("cpu", torch.bfloat16)
        self.forward = lambda images, ids: loss(image(images), text(ids), self.model.logit_scale.exp())
        if compiled:
            self.forward = torch.compile(self.forward)
        decayed = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.2}, {"params": others, "weight_decay": 0.0}],
            lr=1e-4, betas=(0.9, 0.98), eps=1e-6, fused=True)

    def train(self, images, ids, padded):
        self.optimizer.zero_grad()
        with self.mode():
            loss = self.forward(self.torch.from_numpy(images), self.torch.from_numpy(ids))
        loss.backward()
        self.optimizer.step()
        with self.torch.no_grad():
            self.model.logit_scale.clamp_(0, 4.6052)
        return loss.item()


class OnnxRuntime:
    def __init__(self, folder, threads, precision):
        import onnxruntime

        self.runtime, self.folder, self.threads, self.precision = onnxruntime, folder, threads, precision
        self.sessions = {}

    def session(self, name, **sizes):
        """A session whose graph is made for these sizes; the others stay free."""
        key = (name, *sizes.items())
        if key not in self.sessions:
            options = self.runtime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
            for dimension, size in sizes.items():
                options.add_free_dimension_override_by_name(dimension, size)
            self.sessions[key] = self.runtime.InferenceSession(
                self.folder / f"{name}.{self.precision}.onnx", options, providers=["CPUExecutionProvider"])
        return self.sessions[key]

    def image(self, images):
        return self.session("image", batch=len(images)).run(None, {"x": images})[0]

    def text(self, ids, padded):
        sizes = {"batch": len(ids)} if padded else {"batch": len(ids), "length": ids.shape[1]}
        return self.session("text", **sizes).run(None, {"x": ids})[0]


class OpenVino:
    def __init__(self, folder, threads, precision, hint="f32", cached=False):
        import openvino

        self.core = openvino.Core()
        self.folder, self.precision, self.cached = folder, precision, cached
        self.settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
        if cached:
            self.settings["CACHE_DIR"] = str(folder / "openvino_cache")
        self.models = {}

    def model(self, name, shape):
        if (name, *shape) not in self.models:
            path = self.folder / f"{name}.{'int8' if self.precision == 'int8' else 'f32'}.xml"
            if name == "image_1":
                model = path
            else:
                model = self.core.read_model(path)
                model.reshape(shape)
            self.models[name, *shape] = self.core.compile_model(model, "CPU", self.settings)
        return self.models[name, *shape]

    def image(self, images):
        name = "image_1" if len(images) == 1 else "image"
        return self.model(name, images.shape)(images)[0]

    def text(self, ids, padded):
        return self.model("text", (len(ids), -1) if padded else ids.shape)(ids)[0]


# What each setting is called in the table, and how its process makes it.
SETTINGS = {
    "f32": {
        "PyTorch eager": (PyTorch, {"precision": "f32"}),
        "PyTorch compiled": (PyTorch, {"precision": "f32", "compiled": True}),
        "ONNX Runtime": (OnnxRuntime, {"precision": "f32"}),
        "OpenVINO": (OpenVino, {"precision": "f32"}),
    },
    "bf16": {
        "PyTorch eager bf16": (PyTorch, {"precision": "bf16"}),
        "PyTorch autocast bf16": (PyTorch, {"precision": "bf16", "autocast": True}),
        "PyTorch compiled bf16": (PyTorch, {"precision": "bf16", "compiled": True}),
        "OpenVINO bf16": (OpenVino, {"precision": "bf16", "hint": "bf16"}),
    },
    "int8": {
        "PyTorch dynamic int8": (PyTorch, {"precision": "int8"}),
        "ONNX Runtime dynamic int8": (OnnxRuntime, {"precision": "int8"}),
        "OpenVINO NNCF int8": (OpenVino, {"precision": "int8"}),
        "OpenVINO NNCF int8 + bf16": (OpenVino, {"precision": "int8", "hint": "bf16"}),
    },
    "train f32": {
        "PyTorch eager training": (PyTorchTraining, {}),
        "PyTorch compiled training": (PyTorchTraining, {"compiled": True}),
    },
    "train bf16": {
        "PyTorch eager training, amp_bf16": (PyTorchTraining, {"autocast": True}),
        "PyTorch compiled training, amp_bf16": (PyTorchTraining, {"autocast": True, "compiled": True}),
    },
    "first f32": {
        "open_clip": (PyTorch, {"precision": "f32"}),
        "ONNX Runtime": (OnnxRuntime, {"precision": "f32"}),
        "OpenVINO": (OpenVino, {"precision": "f32"}),
        "OpenVINO, its cache": (OpenVino, {"precision": "f32", "cached": True}),
    },
    "first int8": {
        "ONNX Runtime dynamic int8": (OnnxRuntime, {"precision": "int8"}),
        "OpenVINO NNCF int8": (OpenVino, {"precision": "int8"}),
        "OpenVINO NNCF int8, its cache": (OpenVino, {"precision": "int8", "cached": True}),
    },
}


class Inputs:
    def __init__(self, folder):
        import numpy

        self.images = numpy.fromfile(folder / "images.f32", numpy.float32).reshape(-1, 3, 224, 224)
        ids = folder / "ids.i32"
        self.ids = numpy.fromfile(ids, numpy.int32).reshape(-1, 77).astype(numpy.int64) if ids.exists() else None

    def caption_batch(self, count, index, padded):
        begin = index % (len(self.ids) // count) * count
        ids = self.ids[begin:begin + count]
        return ids[:, :ids.argmax(axis=1).max() + 1].copy() if padded else ids


class Server:
    def __init__(self, peer, folder):
        self.peer, self.folder, self.inputs, self.last_loss = peer, folder, Inputs(folder), 0.0

    def work(self, work, batch, index):
        """Does the work; returns its milliseconds and its result."""
        padded = work.endswith("_padded")
        images = self.inputs.images[:batch]
        ids = None if work == "image" else self.inputs.caption_batch(batch, index, padded)
        begin = time.perf_counter()
        if work == "image":
            result = self.peer.image(images)
        elif work.startswith("text"):
            result = self.peer.text(ids, padded)
        else:
            result = self.last_loss = self.peer.train(images, ids, padded)
        return 1e3 * (time.perf_counter() - begin), result

    def time(self, work, batch, begin, repeats):
        return " ".join(str(self.work(work, int(batch), int(begin) + i)[0]) for i in range(int(repeats)))

    def embed(self, work):
        self.work(work, len(self.inputs.images), 0)[1].tofile(self.folder / "found")
        return ""

    def loss(self):
        return str(self.last_loss)


def main():
    setting, folder, threads = sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3])
    # Libraries print, too: standard output is for answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    first = sys.argv[4:] == ["first"]
    kind, found = next((kind, found[setting]) for kind, found in SETTINGS.items()
                       if setting in found and kind.startswith("first") == first)
    make, options = found
    peer = make(folder, threads, **options)
    if first:
        import numpy

        peer.image(numpy.fromfile(folder / "images.f32", numpy.float32, 3 * 224 * 224).reshape(1, 3, 224, 224))
        print("done", file=answers)
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024, file=answers)
        sys.stdin.read()
        return
    server = Server(peer, folder)
    print("ready", file=answers)
    for line in sys.stdin:
        verb, *words = line.split()
        print(getattr(server, verb)(*words), file=answers)


if __name__ == "__main__":
    main()
