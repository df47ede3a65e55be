#!/usr/bin/env python3
"""Prints the table of linear_probe_test.cpp: the optima of multinomial logistic regressions by PyTorch's L-BFGS in double.

Runs in tests/parity's virtual environment: .venv-parity/bin/python tests/tasks/make_probe_goldens.py
"""
import torch

ROWS, WIDTH, CLASSES = 90, 7, 5

rows = torch.tensor([[((i * 7919 + j * 104729 + i * j * 31) % 2003) / 1001.5 - 1 for j in range(WIDTH)] for i in range(ROWS)]).float().double()
labels = torch.tensor([i * 7919 % 101 % CLASSES for i in range(ROWS)])
for strength in (0.01, 1.0, 100.0):
    weights = torch.zeros(CLASSES, WIDTH, dtype=torch.float64, requires_grad=True)
    offsets = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, offsets], max_iter=5000, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe")

    def objective():
        return torch.nn.functional.cross_entropy(rows @ weights.T + offsets, labels, reduction="sum") + weights.square().sum() / (2 * strength)

    def closure():
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    optimizer.step(closure)
    shares = torch.softmax(rows @ weights.T + offsets, 1)
    print(f"    {{{strength}, {objective().item():.9f}, {{{', '.join(f'{share:.7f}' for share in shares[17].tolist())}}}}},")
