#!/usr/bin/env python3
"""check.py FOLDER: what benchmarks/architectures makes of a list, and how it tells variants apart."""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

LIST = """
#include <tandem/models/config.hpp>
namespace td = tandem;
// inline constexpr td::ClipConfig commented_out{};
inline constexpr td::TextConfig words{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2};
inline constexpr td::ClipConfig one{
    .vision = td::VitConfig{.image = 16, .patch = 8, .width = 32, .layers = 1, .heads = 2}, .text = words, .embedding = 16};
inline constexpr auto wrong =
    td::ClipConfig{.vision = td::VitConfig{.image = 16, .patch = 5, .width = 32, .layers = 1, .heads = 2}, .text = words};
inline constexpr td::ClipConfig deeper{
    .vision = td::VitConfig{.image = 16, .patch = 8, .width = 32, .layers = 9, .heads = 2}, .text = words, .embedding = 16};
"""


def expect(condition, text):
    if not condition:
        sys.exit(f"expected {text}")


def check_statistics(architectures):
    """Equal programs that differ by noise are not told apart, and a steady 5 % is."""
    noise = [1.004, 0.997, 1.002, 0.999, 1.001]
    base = [[10.0, 14.0, 10.1], [10.2, 10.1, 9.8], [9.9, 13.0, 13.1], [10.1, 10.0, 10.2], [10.0, 10.1, 12.0]]

    def rounds(factor):
        return [[factor * n * turn for turn in turns] for turns, n in zip(base, noise)]

    ratio, differs = architectures.compare(rounds(1.0), base)
    expect(not differs and abs(ratio - 1) < 0.01, f"no difference, found {ratio} {differs}")
    ratio, differs = architectures.compare(rounds(1.05), base)
    expect(differs and abs(ratio - 1.05) < 0.01, f"5 % to be seen, found {ratio} {differs}")
    one_slow_turn = [[*turns[:-1], 2 * turns[-1]] for turns in rounds(1.0)]
    expect(not architectures.compare(one_slow_turn, base)[1], "one turn that something else made slow not to count")
    expect(architectures.compare([[2.0]], [[1.0]])[1] is False, "one round to prove nothing")


def check_labels(report):
    """No label covers another, or a point, where there is room."""
    points = [(100 + 3 * i, 100 + 2 * i, f"variant_{i}") for i in range(8)]
    boxes = [(x, y - 11, x + 6.6 * len(text), y + 3) for _, _, x, y, text in report._place_labels(points, 700, 400, 60, 10)]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            expect(a[2] <= b[0] or a[0] >= b[2] or a[3] <= b[1] or a[1] >= b[3], f"labels apart, found {a} and {b}")


def main():
    tool = Path(sys.argv[1])
    sys.path.insert(0, str(tool))
    import architectures
    import report

    check_statistics(architectures)
    check_labels(report)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "list.hpp").write_text(LIST)
        command = [sys.executable, tool / "architectures.py", "--list", folder / "list.hpp", "--out", folder / "out", "--rounds", "2"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        expect(result.returncode == 0, f"success, found\n{result.stdout}{result.stderr}")
        expect("wrong does not compile" in result.stderr and "image must be a multiple of patch" in result.stderr,
               f"the compiler's sentence, found\n{result.stderr}")  # fmt: skip
        found = json.loads((folder / "out/results.json").read_text())
        expect(list(found["variants"]) == ["one", "deeper"], f"one and deeper, found {list(found['variants'])}")
        one, deeper = found["variants"]["one"], found["variants"]["deeper"]
        block = 2 * 2 * 32 + 4 * 32 * 32 + 4 * 32 + 8 * 32 * 32 + 5 * 32
        expect(deeper["parameters"] - one["parameters"] == 8 * block, "eight blocks' parameters")
        rows = {(row["variant"], row["row"]): row for row in found["rows"]}
        expect(len(rows) == 2 * len(architectures.ROWS) and len(architectures.ROWS) == 13, "every row of every variant")
        expect(rows["deeper", "image f32 b32"]["ratio_to_base"] > 2, "nine blocks to take longer than one")
        expect(0 < rows["one", "image f32 b32"]["share_of_ceiling"] < 1.2, "a share of the ceiling")
        table = list(csv.DictReader((folder / "out/table.csv").open()))
        expect(len(table) == len(rows) and float(table[0]["ms"]) > 0, "as many lines in table.csv")
        page = (folder / "out/report.html").read_text()
        expect(page.count("<svg") == 2 and "deeper" in page and "http" not in page, "a page that needs nothing else")


if __name__ == "__main__":
    main()
