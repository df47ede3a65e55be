"""Writes fixtures/losses.txt: values of open_clip's and PyTorch's losses, and derivatives by the first image's first element and by the scale, a loss a
line behind its name, of the embeddings that seeing_losses_test.cpp makes likewise; float64."""

import math
from pathlib import Path

import torch
from open_clip.loss import DistillClipLoss
from torch.nn.functional import cross_entropy, normalize

FOLDER = Path(__file__).parent / "fixtures"
PAIRS = 6


def rows(width, first):
    values = [[math.sin(first + 1.3 * i + 0.9 * i * j + 0.4 * j) for j in range(width)] for i in range(PAIRS)]
    return normalize(torch.tensor(values, dtype=torch.float64), dim=1)


def main():
    images, texts, scale = rows(7, 1.0), rows(7, 2.0), torch.tensor(9.0, dtype=torch.float64)
    images.requires_grad_(), scale.requires_grad_()
    teacher = rows(5, 3.0), rows(5, 4.0), torch.tensor(14.0, dtype=torch.float64)
    labels = torch.arange(PAIRS)

    def logits():
        return scale * images @ texts.T

    def smoothed(smoothing):
        return (cross_entropy(logits(), labels, label_smoothing=smoothing) + cross_entropy(logits().T, labels, label_smoothing=smoothing)) / 2

    # Captions 0, 2 and 5 are the same, and 1 and 4: every match a label of an equal share.
    same = torch.tensor([0, 1, 0, 2, 1, 0])
    targets = (same[:, None] == same[None, :]).to(torch.float64)
    targets = targets / targets.sum(dim=1, keepdim=True)
    losses = {
        "distillation": lambda: DistillClipLoss()(images, texts, scale, *teacher)[1],
        "clip_and_distillation": lambda: sum(DistillClipLoss()(images, texts, scale, *teacher)),
        "smoothed": lambda: smoothed(0.1),
        "positives": lambda: (cross_entropy(logits(), targets) + cross_entropy(logits().T, targets)) / 2,
    }
    lines = []
    for name, loss in losses.items():
        value = loss()
        of_images, of_scale = torch.autograd.grad(value, (images, scale))
        lines.append(f"{name} {value.item()!r} {of_images[0, 0].item()!r} {of_scale.item()!r}")
    (FOLDER / "losses.txt").write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
