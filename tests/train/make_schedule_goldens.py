"""Writes fixtures/cosine_lr.txt: the rates of open_clip's cosine_lr at every step, a line "steps warm-up rate rate ..." a run."""

from pathlib import Path

from open_clip_train.scheduler import cosine_lr


class Optimizer:
    param_groups = ()


def main():
    lines = []
    for steps, warmup in ((1, 0), (1, 1), (2, 1), (7, 3), (10, 0), (10, 1), (10, 10), (10, 15), (23, 2), (100, 8), (200, 199)):
        rate = cosine_lr(Optimizer(), 1.0, warmup, steps)
        lines.append(" ".join([str(steps), str(warmup), *(repr(float(rate(step))) for step in range(steps))]))
    path = Path(__file__).parent / "fixtures" / "cosine_lr.txt"
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
