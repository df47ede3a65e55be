#!/usr/bin/env python3
"""Checks which headers include which: the layer rule, and which files alone know a third-party library.

Every folder of include/tandem is a layer. A header includes lower layers or its own folder, never upwards, never in a
circle, with its definitions (<name>.impl.hpp) taken for a part of it; layers of one height do not know each other.
"""
import argparse
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "single_include"))
from amalgamate import DEFINITIONS, REPEATED, includes_definitions, read_lines  # noqa: E402

UMBRELLAS = {"tandem.hpp", "cuda.cuh"}
HEIGHTS = [{"core"}, {"kernels"}, {"tensor"}, {"files", "images", "texts", "data", "nn", "losses"}, {"models"},
           {"train", "tasks"}]
HEIGHT = {layer: height for height, layers in enumerate(HEIGHTS) for layer in layers}
# Layers of one height that a layer may include all the same: configs and tokenizers are files; pairs are made of both.
KNOWN_SIBLINGS = {"images": {"files"}, "texts": {"files"}, "data": {"files", "images", "texts"}}

# What is included, which headers alone may, and how to say so.
THIRD_PARTY = [
    (r"xsimd/.*", r"kernels/native.*", "only kernels/native knows xsimd"),
    (r"(oneapi/)?tbb(/.*|\.h)", r"core/parallel\.impl\.hpp", "only core/parallel knows oneTBB"),
    (r"(unsupported/)?Eigen/.*", r"tensor/eigen\.hpp", "only tensor/eigen knows Eigen"),
    (r"j(peglib|error|config|morecfg|pegint)\.h|turbojpeg\.h", r"images/.*", "only images knows libjpeg"),
    (r"png\.h|libpng.*/.*|pngconf\.h", r"images/.*", "only images knows libpng"),
    (r"webp/.*", r"images/webp\.hpp", "only images/webp.hpp knows libwebp"),
    (r"hnswlib/.*", r"tasks/approximate_index\.hpp", "only tasks/approximate_index.hpp knows hnswlib"),
    (r"nlopt\.h(pp)?", r"tasks/linear_probe\.hpp", "only tasks/linear_probe.hpp knows NLopt"),
    (r"mpi\.h", r"train/mpi\.hpp", "only train/mpi.hpp knows MPI"),
    (r"utf8proc\.h", r"texts/.*", "only texts knows utf8proc"),
    (r"z(lib|conf)\.h", r"(files|texts)/.*", "only files and texts know zlib"),
    (r"rapidjson/.*", r"files/json\.impl\.hpp", "only files/json.impl.hpp knows RapidJSON"),
    (r"([a-z0-9]*mmintrin|[a-z0-9]*intrin|arm_[a-z0-9]+|cpuid)\.h", r"kernels/.*", "only kernels holds intrinsics"),
    (r"cu(da|blas|dnn|rand|tlass).*|mma\.h|nvtx.*", r"kernels/cuda.*|cuda\.cuh", "only kernels/cuda knows CUDA"),
]


def layer_of(name):
    """The folder of a header; the umbrellas are a layer of their own, above all others."""
    return name.split("/")[0] if "/" in name else ""


def broken_rule(name, included):
    """Why a header must not include another one of the project, or None."""
    if name in UMBRELLAS:
        return None
    if included in UMBRELLAS:
        return "an umbrella header is for users"
    layer, other = layer_of(name), layer_of(included)
    if layer == other or HEIGHT[other] < HEIGHT[layer]:
        return None
    if other in KNOWN_SIBLINGS.get(layer, set()):
        return None
    if HEIGHT[other] == HEIGHT[layer]:
        return f"{layer} and {other} are siblings and do not know each other"
    return f"{other} lies above {layer}"


def find_circles(edges):
    """One complaint for each include that closes a circle. edges: {header: [(file, line, included)]}."""
    complaints, done, path = [], set(), []

    def visit(name):
        if name in done:
            return
        path.append(name)
        for file, line, included in edges.get(name, []):
            if included in path:
                circle = path[path.index(included):] + [included]
                complaints.append((file, line, "a circle of includes: " + " -> ".join(circle)))
            else:
                visit(included)
        path.pop()
        done.add(name)

    for name in sorted(edges):
        visit(name)
    return complaints


def check(include):
    """The complaints about a folder include/tandem, each a (header, line, sentence)."""
    complaints, edges = [], {}
    for path in sorted([*include.rglob("*.hpp"), *include.rglob("*.cuh")]):
        name = path.relative_to(include).as_posix()
        header = name.replace(DEFINITIONS, ".hpp")
        edges.setdefault(header, [])
        if name not in UMBRELLAS and layer_of(name) not in HEIGHT:
            complaints.append((name, 1, "this folder is no layer; name its place in tests/structure/layers.py"))
            continue
        lines = read_lines(path)
        if "#pragma once" not in (line.code.strip() for line in lines):
            complaints.append((name, 1, "#pragma once is missing"))
        for line in lines:
            if line.include is None:
                continue
            if line.quoted:
                complaints.append((name, line.number, f'write <tandem/...> instead of "{line.include}"'))
                continue
            for pattern, allowed, sentence in THIRD_PARTY:
                if re.fullmatch(pattern, line.include) and not re.fullmatch(allowed, name):
                    complaints.append((name, line.number, f"must not include {line.include}: {sentence}"))
            if not line.project:
                continue
            included = line.include.removeprefix("tandem/")
            if includes_definitions(line, name):
                continue
            if line.depth and not included.endswith(REPEATED):
                complaints.append((name, line.number, f"must not include {line.include} under #if"))
            if not (include / included).is_file():
                complaints.append((name, line.number, f"there is no header {line.include}"))
                continue
            if included != header:
                edges[header].append((name, line.number, included))
            if included in UMBRELLAS or layer_of(included) in HEIGHT:
                reason = broken_rule(name, included)
                if reason:
                    complaints.append((name, line.number, f"must not include {line.include}: {reason}"))
    return complaints + find_circles(edges)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("include", type=pathlib.Path, help="the folder include/tandem")
    include = parser.parse_args().include
    complaints = check(include)
    for name, line, sentence in complaints:
        print(f"include/tandem/{name}:{line}: {sentence}")
    if complaints or not any(include.rglob("*.hpp")):
        sys.exit(f"{len(complaints)} broken rules in {include}")


if __name__ == "__main__":
    main()
