#!/usr/bin/env python3
"""pytorch.py PROGRAM: the right halves of .docs/pages/pytorch.md give the numbers of the left ones.

PROGRAM is that of snippets.py; the left halves' numbers stand in torch_goldens.json, which make_torch_goldens.py writes
(CI has no PyTorch). A left half that is another than the one those numbers are of is a fault.
"""
import hashlib
import json
import pathlib
import subprocess
import sys

from pages import in_folder
from snippets import blocks

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / ".docs/pages/pytorch.md"
LEAST_PAIRS = 20

# Both sides compute in float32, in different orders, and the longest of the snippets' sums and chains have about ten
# steps: 16 units in the last place (1.2e-7) of the largest number. Integers and copies are equal under it.
TOLERANCE = 16 * 2.0**-23


def digest(python):
    return hashlib.sha256(python.encode()).hexdigest()[:16]


def pairs(page):
    """Of every heading, its Python and its C++."""
    found = {}
    for block in blocks(page):
        found.setdefault(block.heading, {})[block.language] = block.text()
    for title, halves in found.items():
        if set(halves) != {"python", "cpp"}:
            raise SystemExit(f"{page.name}: \"{title}\" needs one python block and one cpp block")
    return {title: (halves["python"], halves["cpp"]) for title, halves in found.items()}


def faults_of(title, python, golden, found):
    if golden is None or golden["digest"] != digest(python):
        return "its Python changed: run make_torch_goldens.py"
    expected = golden["result"]
    if found is None or len(found) != len(expected):
        return f"expected {len(expected)} numbers, found {0 if found is None else len(found)}"
    bound = TOLERANCE * max(1.0, *map(abs, expected))
    worst = max(range(len(expected)), key=lambda i: abs(found[i] - expected[i]))
    if not abs(found[worst] - expected[worst]) <= bound:
        return f"number {worst}: expected {expected[worst]:.9g}, found {found[worst]:.9g}, more than {bound:.2g} apart"
    return None


def main():
    goldens = json.loads((HERE / "torch_goldens.json").read_text(encoding="utf-8"))
    run = in_folder([sys.argv[1], "pytorch"], stdout=subprocess.PIPE)
    lines = [line.split("\t") for line in run.stdout.splitlines() if "\t" in line]
    found = {title: [float(number) for number in numbers.split()] for title, numbers in lines}
    expected = pairs(PAGE)
    faults = {title: faults_of(title, python, goldens.get(title), found.get(title))
              for title, (python, _) in expected.items()}
    faults = [f"{title}: {fault}" for title, fault in faults.items() if fault]
    faults += [f"{title}: in torch_goldens.json, not on the page" for title in goldens.keys() - expected.keys() - {"versions"}]
    if len(expected) < LEAST_PAIRS:
        faults.append(f"{len(expected)} pairs, fewer than {LEAST_PAIRS}")
    print("\n".join(faults + [f"{len(expected)} pairs, {len(faults)} faults"]))
    sys.exit(bool(faults or run.returncode))


if __name__ == "__main__":
    main()
