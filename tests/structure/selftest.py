#!/usr/bin/env python3
"""Checks the checkers: on small trees with one fault each, layers.py and amalgamate.py must name the faulty line."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import layers  # noqa: E402  (it puts single_include on the path)
from amalgamate import Amalgamation, Mistake  # noqa: E402

GOOD = {
    "core/error.hpp": "// Errors.\n#pragma once\n\n#include <string>\n\nstruct Error {};\n",
    "core/parallel.hpp": "#pragma once\n#include <tandem/core/error.hpp>\nvoid run();\n"
                         "#if !defined(TANDEM_COMPILED)\n#include <tandem/core/parallel.impl.hpp>\n#endif\n",
    "core/parallel.impl.hpp": "#pragma once\n#include <deque>\n#include <tbb/parallel_for.h>\n#include <tandem/core/parallel.hpp>\n"
                              "void run() {}\n",
    "kernels/native.hpp": "#pragma once\n#include <xsimd/xsimd.hpp>\n#include <tandem/core/error.hpp>\n",
    "kernels/avx2.hpp": "#pragma once\n#if defined(__x86_64__)\n#include <immintrin.h>\n#endif\n",
    "tensor/tensor.hpp": "#pragma once\n#include <tandem/kernels/native.hpp>\n#include <tandem/kernels/avx2.hpp>\n",
    "tensor/eigen.hpp": "#pragma once\n#include <Eigen/Core>\n#include <tandem/tensor/tensor.hpp>\n",
    "images/image.hpp": "#pragma once\n#if __has_include(<png.h>)\n#include <png.h>\n#endif\n"
                      "#include <tandem/core/parallel.hpp>\n",
    "nn/linear.hpp": "#pragma once\n#include <tandem/tensor/tensor.hpp>\n",
    "models/clip.hpp": "#pragma once\n#include <tandem/images/image.hpp>\n#include <tandem/nn/linear.hpp>\n",
    "train/trainer.hpp": "#pragma once\n#include <tandem/models/clip.hpp>\n",
    "tandem.hpp": "#pragma once\n#include <string>\n#include <tandem/train/trainer.hpp>\n",
}


class Tree(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.include = pathlib.Path(self.folder.name) / "include/tandem"
        for name, text in GOOD.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.include / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class Layers(Tree):
    def expect(self, name, text, line, words):
        self.write(name, text)
        complaints = layers.check(self.include)
        self.assertEqual([(name, line)], [(where, number) for where, number, _ in complaints], complaints)
        self.assertIn(words, complaints[0][2])

    def test_good_tree(self):
        self.assertEqual([], layers.check(self.include))

    def test_upwards(self):
        self.expect("core/error.hpp", "#pragma once\n\n#include <tandem/core/missing.hpp>\n", 3, "there is no header")
        self.expect("core/error.hpp", "#pragma once\n#include <vector>\n#include <tandem/losses/sum.hpp>\n", 3, "no header")
        self.write("losses/sum.hpp", "#pragma once\n")
        self.expect("core/error.hpp", "#pragma once\n#include <vector>\n#include <tandem/losses/sum.hpp>\n", 3,
                    "losses lies above core")

    def test_siblings(self):
        self.expect("nn/linear.hpp", "#pragma once\n#include <tandem/images/image.hpp>\n", 2, "siblings")
        self.setUp()
        self.expect("texts/bpe.hpp", "#pragma once\n#include <tandem/images/image.hpp>\n", 2, "siblings")
        self.setUp()
        self.write("files/json.hpp", "#pragma once\n#include <tandem/images/image.hpp>\n")
        self.write("data/pairs.hpp", "#pragma once\n#include <tandem/files/json.hpp>\n")
        self.expect("files/json.hpp", "#pragma once\n#include <tandem/images/image.hpp>\n", 2, "siblings")
        self.setUp()
        self.write("tasks/probe.hpp", "#pragma once\n")
        self.expect("train/trainer.hpp", "#pragma once\n#include <tandem/tasks/probe.hpp>\n", 2, "siblings")

    def test_umbrella(self):
        self.expect("train/schedule.hpp", "#pragma once\n#include <tandem/cuda.cuh>\n", 2, "no header")
        self.write("cuda.cuh", "#pragma once\n#include <cuda_runtime.h>\n")
        self.expect("train/schedule.hpp", "#pragma once\n#include <tandem/cuda.cuh>\n", 2, "umbrella")

    def test_circle(self):
        self.write("nn/block.hpp", "#pragma once\n#include <tandem/nn/linear.hpp>\n")
        self.write("nn/linear.hpp", "#pragma once\n\n#include <tandem/nn/block.hpp>\n")
        complaints = layers.check(self.include)
        self.assertEqual(1, len(complaints))
        self.assertEqual(("nn/block.hpp", 2), complaints[0][:2])
        self.assertIn("circle", complaints[0][2])

    def test_under_if(self):
        self.expect("nn/linear.hpp", "#pragma once\n#if X  // why\n#include <tandem/core/error.hpp>\n#endif\n", 3,
                    "under #if")

    def test_third_party(self):
        for name, header, words in [
                ("tensor/evaluate.hpp", "xsimd/xsimd.hpp", "xsimd"), ("data/pairs.hpp", "tbb/task_group.h", "oneTBB"),
                ("data/pairs.hpp", "oneapi/tbb/task_group.h", "oneTBB"), ("models/vit.hpp", "Eigen/Dense", "Eigen"),
                ("train/snapshot.hpp", "rapidjson/reader.h", "RapidJSON"), ("tasks/show.hpp", "jpeglib.h", "libjpeg"),
                ("tasks/show.hpp", "png.h", "libpng"), ("nn/token.hpp", "utf8proc.h", "utf8proc"),
                ("models/checkpoint.hpp", "zlib.h", "zlib"), ("tensor/matmul.hpp", "immintrin.h", "intrinsics"),
                ("core/cpu.hpp", "cpuid.h", "intrinsics"), ("tensor/matmul.hpp", "arm_neon.h", "intrinsics"),
                ("tensor/matmul.hpp", "cuda_runtime.h", "CUDA")]:
            with self.subTest(header=header):
                self.expect(name, f"#pragma once\n#include <string>\n#include <{header}>\n", 3, words)
                (self.include / name).unlink()

    def test_spelling(self):
        self.expect("nn/linear.hpp", '#pragma once\n#include "../core/error.hpp"\n', 2, "instead of")
        self.expect("nn/linear.hpp", "// Linear.\nstruct Linear {};\n", 1, "#pragma once")

    def test_unknown_layer(self):
        self.expect("util/misc.hpp", "#pragma once\n", 1, "no layer")

    def test_comments_are_no_includes(self):
        self.write("nn/linear.hpp", '#pragma once\n/*\n#include <zlib.h>\n*/\n// #include <zlib.h>\n'
                                    'auto text = R"(\n#include <zlib.h>\n)";\n')
        self.assertEqual([], layers.check(self.include))


class SingleHeader(Tree):
    def text(self):
        return Amalgamation(self.include).text("Licence.\n")

    def expect(self, name, text, words):
        self.write(name, text)
        with self.assertRaisesRegex(Mistake, words):
            self.text()

    def test_good_tree(self):
        text = self.text()
        self.assertNotIn("include <tandem", text)
        self.assertEqual(1, text.count("struct Error {};"))
        self.assertEqual(1, text.count("#include <string>"))
        self.assertEqual(1, text.count("#pragma once"))
        self.assertIn("#if __has_include(<png.h>)\n#include <png.h>\n#endif", text)
        self.assertLess(text.index("struct Error"), text.index("tandem/core/parallel.hpp"))
        self.assertLess(text.index("#if defined(TANDEM_EIGEN)"), text.index("#include <Eigen/Core>"))
        self.assertEqual(text, self.text())

    def test_under_if(self):
        self.expect("nn/linear.hpp", "#pragma once\n#ifdef X\n#include <tandem/core/error.hpp>\n#endif\n",
                    r"nn/linear.hpp:3: .*under #if")

    def test_after_code(self):
        self.expect("nn/linear.hpp", "#pragma once\n#define X\n#include <tandem/core/error.hpp>\n",
                    r"nn/linear.hpp:3: .*before the code")

    def test_repeated_text(self):
        self.write("nn/kernels.ipp", "struct Kernel {};\n")
        self.write("nn/linear.hpp", "#pragma once\n#if X\nnamespace x {\n#include <tandem/nn/kernels.ipp>\n}\n#endif\n"
                                    "namespace y {\n#include <tandem/nn/kernels.ipp>\n}\n")
        self.assertEqual(2, self.text().count("struct Kernel {};"))
        self.assertEqual([], layers.check(self.include))
        self.expect("nn/kernels.ipp", "#include <string>\n", r"nn/kernels.ipp: .*cannot include anything")
        self.expect("nn/linear.hpp", "#pragma once\n#include <tandem/nn/missing.ipp>\n", "no file nn/missing.ipp")

    def test_forgotten_header(self):
        self.expect("nn/gelu.hpp", "#pragma once\n", r"nn/gelu.hpp: not included by tandem.hpp")
        self.write("cuda.cuh", "#pragma once\n#include <tandem/nn/gelu.hpp>\n")
        self.assertNotIn("nn/gelu.hpp", self.text())


if __name__ == "__main__":
    unittest.main()
