"""Writes tests/images/fixtures/image/colors.txt: what torchvision's color operations make of Pillow's images.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/images/make_color_goldens.py [--out DIR]

colors.txt     operation factor hash               of every third value of each channel: 86 * 86 by 86 pixels
               jitter order brightness contrast saturation hue hash      the four of them, in that order

Hashes are 64-bit FNV-1a of the RGB bytes.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from make_image_goldens import fnv
from PIL import Image
from torchvision.transforms import Grayscale, functional

FACTORS = (0.0, 0.3, 0.999, 1.0, 1.1, 1.7, 5.0)
HUES = (-0.5, -0.31, -0.003, 0.0, 0.07, 0.2, 0.5)
STEPS = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation, functional.adjust_hue)


def colors():
    """Pixel (x, y) is (3 (x % 86), 3 (x // 86), 3 y)."""
    x, y = np.meshgrid(np.arange(86 * 86), np.arange(86))
    return Image.fromarray((3 * np.stack([x % 86, x // 86, y], axis=-1)).astype(np.uint8))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "fixtures" / "image")
    out = parser.parse_args().out
    image = colors()
    lines = [f"grayscale 0 {fnv(Grayscale(3)(image))}"]
    for step in STEPS:
        name = step.__name__.removeprefix("adjust_")
        lines += [f"{name} {factor} {fnv(step(image, factor))}" for factor in (HUES if name == "hue" else FACTORS)]
    for number, order in enumerate(itertools.permutations(range(4))):
        factors = 0.6 + 0.04 * number, 1.4 - 0.03 * number, 0.5 + 0.05 * number, 0.04 * number - 0.45
        result = image
        for step in order:
            result = STEPS[step](result, factors[step])
        lines.append(f"jitter {''.join(map(str, order))} {' '.join(map(repr, factors))} {fnv(result)}")
    (out / "colors.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
