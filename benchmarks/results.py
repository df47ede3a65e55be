#!/usr/bin/env python3
"""results.py README [--check]: writes the table of benchmarks/results/*.json into README, or says whether it stands there.

Every file is what `compare.sh --record` found on one kind of CPU. A number is the best peer's time (or memory) over
tandem's: above 1, tandem is faster (or smaller).
"""
import json
import pathlib
import re
import sys

ROWS = [
    *((f"image {precision}, batch {batch}", ("image", precision, batch)) for precision in ("f32", "bf16", "int8")
      for batch in (1, 8, 32)),
    *((f"{model}, image {precision}, batch 8", (work, precision, 8))
      for model, work in (("ViT-L/14", "image_vit_l_14"), ("SigLIP B/16", "image_vit_b_16_siglip")) for precision in ("f32", "bf16", "int8")),
    *((f"captions {precision}, batch 32, peers at {peers}", (work, precision, 32)) for precision in ("f32", "bf16", "int8")
      for peers, work in (("77 tokens", "text"), ("the batch's longest", "text_padded"))),
    *((f"training step {precision}, batch 32, peers at {peers}", (work, precision, 32)) for precision in ("f32", "bf16")
      for peers, work in (("77 tokens", "train"), ("the batch's longest", "train_padded"))),
    *((f"start of the process to the first image's embedding, {precision}{how}", (work, precision, 1))
      for precision in ("f32", "int8") for how, work in (("", "cold_start"), (", packed file", "cold_start_packed"))),
    *((f"{what}, image {precision}, batch 1", (work, precision, 1)) for precision in ("f32", "int8")
      for what, work in (("peak memory", "memory"), ("memory of ten processes, packed file", "memory_of_ten"))),
]
BEGIN, END = "<!-- made by benchmarks/results.py -->\n", "<!-- end of what benchmarks/results.py makes -->\n"


def table(folder):
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not found:
        sys.exit(f"results.py: {folder} holds no results")
    ratios = [{(row["work"], row["precision"], row["batch"]): row["ratio"] for row in one["rows"]} for one in found]
    unknown = {key for one in ratios for key in one} - {key for _, key in ROWS}
    if unknown:
        sys.exit(f"results.py: rows without a line in the table: {sorted(unknown)}")
    lines = ["| ViT-B/32, if nothing else is said | " + " | ".join(f"{one['machine']}, kernels for {one['kernels']}" for one in found) + " |",
             "|---" * (len(found) + 1) + "|"]
    for name, key in ROWS:
        cells = [f"{one[key]:.2f}" if key in one else "" for one in ratios]
        if any(cells):
            lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--check"]):
        sys.exit(__doc__)
    readme = pathlib.Path(sys.argv[1])
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"results.py: {readme}: expected one pair of the lines {BEGIN.strip()} and {END.strip()}")
    made = re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: BEGIN + table(pathlib.Path(__file__).parent / "results") + END,
                  text, flags=re.DOTALL)
    if len(sys.argv) == 2:
        readme.write_text(made)
    elif made != text:
        sys.exit(f"results.py: {readme}: the table is not that of benchmarks/results: run benchmarks/results.py {readme}")


if __name__ == "__main__":
    main()
