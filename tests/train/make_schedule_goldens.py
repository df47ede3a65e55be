"""Writes what open_clip's schedules give at every step, a run a line: fixtures/cosine_lr.txt ("steps warm-up rate rate ...") and
fixtures/const_lr.txt ("steps warm-up cooldown power end rate rate ..."; a cooldown of 0 steps is const_lr)."""

from pathlib import Path

from open_clip_train.scheduler import const_lr, const_lr_cooldown, cosine_lr

FOLDER = Path(__file__).parent / "fixtures"


class Optimizer:
    param_groups = ()


def rates(schedule, steps):
    return [repr(float(schedule(step))) for step in range(steps)]


def main():
    lines = []
    for steps, warmup in ((1, 0), (1, 1), (2, 1), (7, 3), (10, 0), (10, 1), (10, 10), (10, 15), (23, 2), (100, 8), (200, 199)):
        lines.append(" ".join([str(steps), str(warmup), *rates(cosine_lr(Optimizer(), 1.0, warmup, steps), steps)]))
    (FOLDER / "cosine_lr.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
    lines = []
    for steps, warmup, cooldown, power, end in ((1, 0, 0, 1, 0), (10, 3, 0, 1, 0), (10, 15, 0, 1, 0), (10, 3, 4, 1, 0), (10, 3, 4, 2, 0.1), (10, 0, 10, 0.5, 0),
                                                (10, 6, 8, 1, 0), (23, 2, 5, 1.5, 0.25), (100, 8, 20, 1, 0.01), (7, 1, 1, 1, 0)):
        schedule = const_lr_cooldown(Optimizer(), 1.0, warmup, steps, cooldown, power, end) if cooldown else const_lr(Optimizer(), 1.0, warmup, steps)
        lines.append(" ".join([*map(str, (steps, warmup, cooldown, power, end)), *rates(schedule, steps)]))
    (FOLDER / "const_lr.txt").write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
