"""Writes fixtures/optimizers.txt: the losses of twenty steps of PyTorch's and timm's optimizers, one a line behind its name, of the quadratic that
optimizer_test.cpp has as well, in float64: torch.optim.Muon's products too, which it rounds to bfloat16. Matrices decay."""

import math
from pathlib import Path

import torch
from timm.optim import Lion

FOLDER = Path(__file__).parent / "fixtures"
SHAPES = {"blocks.0.tall": (5, 3), "blocks.1.wide": (3, 7), "embedding": (4, 6), "vector": (5,)}


def made(function, shape, first):
    count = math.prod(shape)
    return torch.tensor([function(first + i) for i in range(count)], dtype=torch.float64).reshape(shape)


def losses(make):
    parameters, targets, curvatures, first = {}, {}, {}, 0
    for name, shape in SHAPES.items():
        parameters[name] = torch.nn.Parameter(made(lambda k: math.sin(0.7 * k + 1), shape, first))
        targets[name] = made(lambda k: math.cos(0.3 * k), shape, first)
        curvatures[name] = made(lambda k: 1 + 0.5 * math.sin(k), shape, first)
        first += math.prod(shape)
    optimizers = make(parameters)
    for _ in range(20):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = sum(0.5 * (curvatures[name] * (p - targets[name]) ** 2).sum() for name, p in parameters.items())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        yield loss.item()


def groups(parameters, decay):
    return [{"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": decay},
            {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0}]


def muon(nesterov):
    def make(parameters):
        of_blocks = [p for name, p in parameters.items() if name.startswith("blocks.")]
        rest = {name: p for name, p in parameters.items() if not name.startswith("blocks.")}
        return [torch.optim.Muon(of_blocks, lr=0.05, weight_decay=0.2, momentum=0.9, nesterov=nesterov, adjust_lr_fn="match_rms_adamw"),
                torch.optim.AdamW(groups(rest, 0.2), lr=0.05, betas=(0.9, 0.98), eps=1e-6)]
    return make


def main():
    torch.Tensor.bfloat16 = torch.Tensor.clone
    runs = {
        "adamw": lambda p: [torch.optim.AdamW(groups(p, 0.2), lr=0.05, betas=(0.9, 0.98), eps=1e-6)],
        "lion": lambda p: [Lion(groups(p, 0.5), lr=0.02, betas=(0.9, 0.99))],
        "sgd": lambda p: [torch.optim.SGD(groups(p, 0.1), lr=0.1, momentum=0.9)],
        "nesterov": lambda p: [torch.optim.SGD(groups(p, 0.1), lr=0.1, momentum=0.9, nesterov=True)],
        "muon": muon(True),
        "plain_muon": muon(False),
    }
    lines = [" ".join([name, *(repr(loss) for loss in losses(make))]) for name, make in runs.items()]
    (FOLDER / "optimizers.txt").write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
