#!/usr/bin/env python3
"""Prints the table of tasks_test.cpp: what open_clip's own evaluation says of embeddings: its trainer's recalls (open_clip_train/train.py,
get_clip_metrics), and its zero-shot accuracies (open_clip_train/zero_shot.py, accuracy) by a classifier of two prompts a class
(open_clip/zero_shot_classifier.py).

Runs in tests/parity's virtual environment: .venv-parity/bin/python tests/tasks/make_evaluation_goldens.py
"""
import torch
from open_clip import build_zero_shot_classifier
from open_clip_train import zero_shot
from open_clip_train.train import get_clip_metrics
from torch.nn.functional import normalize

PAIRS, WIDTH, CLASSES = 211, 8, 12
zero_shot.float = lambda array: array.item()  # open_clip 3.3.0 makes numbers of arrays of one, which numpy 2 does not


def rows(count, step):
    return torch.tensor([[((i * 7919 * step + j * 104729 + i * j * 31) % 2003) / 1001.5 - 1 for j in range(WIDTH)] for i in range(count)])


class Model:
    """Whose captions are the numbers of their embeddings."""

    def encode_text(self, numbers, normalize):
        assert normalize
        return torch.nn.functional.normalize(rows(2 * CLASSES, 5)[numbers], dim=1)


def numbers_of(texts):
    """Prompt "c.k" is row 2 c + k."""
    return torch.tensor([2 * int(text.split(".")[0]) + int(text.split(".")[1]) for text in texts])


images = rows(PAIRS, 1)
texts = normalize(images + 0.9 * rows(PAIRS, 3), dim=1)
images = normalize(images, dim=1)
found = get_clip_metrics(images, texts, 1.0)
for way in ("image_to_text", "text_to_image"):
    print(f"    {{{', '.join(repr(float(found[f'{way}_R@{k}'])) for k in (1, 5, 10))}}},")

classifier = build_zero_shot_classifier(Model(), numbers_of, [str(c) for c in range(CLASSES)], ["{}.0", "{}.1"])
labels = torch.arange(PAIRS) * 7919 % 101 % CLASSES
hits = [count / PAIRS for count in zero_shot.accuracy(images @ classifier, labels, topk=(1, 5))]
print(f"    {{{', '.join(repr(hit) for hit in hits)}}}")
