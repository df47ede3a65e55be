#!/usr/bin/env python3
"""check.py FOLDER: examples/study on pictures of its own making, and what it makes of its numbers."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "quickstart"))
from check import make_colours  # noqa: E402

LIST = """
#include <tandem/tandem.hpp>
namespace td = tandem;
inline constexpr td::TextConfig words{.vocabulary = 600, .context = 8, .width = 32, .layers = 1, .heads = 2};
inline constexpr td::ClipConfig one{
    .vision = td::VitConfig{.image = 16, .patch = 8, .width = 32, .layers = 1, .heads = 2}, .text = words, .embedding = 32};
inline constexpr td::ClipConfig wrong{.vision = td::VitConfig{.width = 33, .heads = 2}, .text = words};
inline const auto one_loss = td::matryoshka<8, 32>(td::InfoNce{});
"""


def expect(condition, text):
    if not condition:
        sys.exit(f"expected {text}")


def check_statistics(study_report):
    def study(values):
        return {"base": "a", "seeds": 3, "variants": {"a": {}, "b": {}},
                "trials": [{"variant": v, "seed": s, "t2i_r10": y} for v, ys in values.items() for s, y in enumerate(ys)]}  # fmt: skip

    same = study_report.paired_differences(study({"a": [0.3, 0.5, 0.4], "b": [0.3, 0.5, 0.4]}), "t2i_r10")["b"]
    expect(same == (0, 0) and not study_report.is_different(same), f"no difference of equal variants, found {same}")
    noisy = study_report.paired_differences(study({"a": [0.30, 0.50, 0.40], "b": [0.31, 0.48, 0.42]}), "t2i_r10")["b"]
    expect(not study_report.is_different(noisy), f"noise not to count, found {noisy}")
    better = study_report.paired_differences(study({"a": [0.30, 0.50, 0.40], "b": [0.36, 0.55, 0.455]}), "t2i_r10")["b"]
    expect(study_report.is_different(better), f"a steady gain to count though seeds vary more, found {better}")
    # The mean of 0.06, 0.05 and 0.055, and 4.303 times 0.005 / sqrt(3).
    expect(abs(better[0] - 0.055) < 1e-9 and abs(better[1] - 4.303 * 0.005 / math.sqrt(3)) < 1e-9, f"Student's, found {better}")
    front = study_report.front([(1, 0.2, "a"), (2, 0.1, "b"), (3, 0.5, "c"), (3, 0.4, "d"), (0.5, 0.05, "e")])
    expect(front == ["e", "a", "c"], f"the front e, a, c, found {front}")


def check_options(command):
    """Every option with values that are none for it, and twice: the answer names it."""
    for at in range(2, len(command) - 1, 2):
        option = command[at]
        wrong = ["", "/dev/null"] if option == "--out" else ["", "/dev/null", "-1", "#", "1e99", "nan"]
        for arguments in [[*command[: at + 1], bad, *command[at + 2 :]] for bad in wrong] + [[*command, option, command[at + 1]], [*command, option]]:
            result = subprocess.run(arguments, capture_output=True, text=True, check=False)
            expect(result.returncode == 2 and option in result.stderr.splitlines()[-1], f"an error that names {option}, found {result}")


def check_inputs(study, folder):
    """Each thing that a trial's result depends on changes its own word of the inputs, and nothing else does."""
    list_path, images, captions = folder / "list.hpp", folder / "data", folder / "data/captions.tsv"
    options = SimpleNamespace(budget="samples=1")

    def inputs(depth="1", key="key"):
        arguments = ["--images", images, "--captions", captions, "--class-depth", depth]
        return study.trial_inputs(options, list_path, key, images, captions, arguments)

    before = inputs()
    expect(inputs() == before, "the same inputs twice")

    def expect_only(name, found):
        changed = [key for key in before if found[key] != before[key]]
        expect(changed == [name], f"{name} alone to change, found {changed}")

    def with_file(path, content):
        kept, stat = path.read_bytes(), path.stat()
        path.write_bytes(content)
        found = inputs()
        path.write_bytes(kept)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return found

    expect_only("list", with_file(list_path, list_path.read_bytes() + b"// more"))
    expect_only("captions", with_file(captions, captions.read_bytes().replace(b"red\n", b"rot\n")))
    expect_only("images", with_file(images / "red/0.png", b"no picture"))
    expect_only("classes", inputs(depth="2"))
    expect_only("library and compiler", inputs(key="other"))
    options.budget = "samples=2"
    expect_only("budget", inputs())
    options.budget = "samples=1"
    os.environ["TANDEM_ISA"] = "scalar"
    expect_only("TANDEM_ISA", inputs())
    del os.environ["TANDEM_ISA"]
    expect(inputs() == before, "the same inputs as before")


def main():
    tool = Path(sys.argv[1])
    sys.path.insert(0, str(tool))
    import study
    import study_report

    check_statistics(study_report)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_colours(folder / "data")
        (folder / "list.hpp").write_text(LIST)
        command = [sys.executable, tool / "study.py", "--list", folder / "list.hpp", "--data", folder / "data",
                   "--budget", "samples=64000", "--seeds", "2", "--no-times", "--out"]  # fmt: skip
        check_inputs(study, folder)
        check_options([sys.executable, tool / "study.py", "--list", folder / "list.hpp", "--data", folder / "data", "--budget", "samples=9",
                       "--seeds", "1", "--variants", "one", "--family", "one", "--rounds", "1", "--out", folder / "options"])  # fmt: skip
        # Killed in the middle of the first trial, the program and the trial both.
        running = subprocess.Popen([*command, folder / "out"], stderr=subprocess.DEVNULL, start_new_session=True)
        snapshot = folder / "out/trials/one.0/snapshot.safetensors"
        while not snapshot.exists():
            expect(running.poll() is None, "the study to run until it is killed")
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        expect(not (folder / "out/trials/one.0/trial.json").exists(), "the trial to be unfinished when it is killed")
        result = subprocess.run([*command, folder / "out"], capture_output=True, text=True, check=False)
        expect(result.returncode == 0, f"success, found\n{result.stdout}{result.stderr}")
        log = (folder / "out/trials/one.0/log.txt").read_text()
        expect("going on from step" in log, f"the trial to go on where it was, found\n{log}")
        expect("failed: wrong, seed None: does not compile" in result.stdout, f"the failure reported, found\n{result.stdout}")
        found = json.loads((folder / "out/study.json").read_text())
        expect([(t["variant"], t["seed"], t["steps"]) for t in found["trials"]] == [("one", 0, 500), ("one", 1, 500)], "two trials of 500 steps")
        def expect_as_whole(first, out):
            """That a trial of the study comes to what it does alone, with nothing to go on from."""
            command = [folder / "out/build/trial_one", "--images", folder / "data", "--captions", folder / "data/captions.tsv",
                       "--class-depth", "1", "--class-minimum", "5", "--out", folder / out, "--seed", "0", "--samples", "64000"]  # fmt: skip
            whole = subprocess.run(command, capture_output=True, text=True, check=False)
            expect(whole.returncode == 0, f"the trial alone to succeed, found\n{whole.stderr}")
            again = json.loads((folder / out / "trial.json").read_text())
            for key in ("final_train_loss", "held_out_loss", "zero_shot_macro", "t2i_r10", "curve"):
                same = again.get(key) == first.get(key) or (again[key] is None and first[key] is None)
                expect(same, f"{key} {again.get(key)} as without the kill, found {first.get(key)}")

        first = found["trials"][0]
        expect_as_whole(first, "whole")
        expect(first["zero_shot_macro"] > 0.9 and first["train_flops"] > 0, f"three colours to be told apart, found {first['zero_shot_macro']}")
        table = list(csv.DictReader((folder / "out/trials.csv").open()))
        expect(len(table) == 2 and float(table[1]["t2i_r10"]) >= 0, "two lines in trials.csv")
        page = (folder / "out/report.html").read_text()
        expect("<svg" in page and "does not compile" in page and "http" not in page, "a page that needs nothing else")
        # Of other data, every trial is made anew.
        lines = (folder / "data/captions.tsv").read_text().splitlines(keepends=True)
        (folder / "data/captions.tsv").write_text("".join(lines[20:]))
        result = subprocess.run([*command, folder / "out"], capture_output=True, text=True, check=False)
        expect(result.returncode == 0 and result.stderr.count("trained anew: other than before are captions, images") == 2, f"two trials made anew, found\n{result.stderr}")
        expect_as_whole(json.loads((folder / "out/study.json").read_text())["trials"][0], "other")
        # Finished trials stand; a trial that fails is reported and is not fatal.
        (folder / "out/trials/one.1/trial.json").unlink()
        (folder / "out/trials/one.1/snapshot.safetensors").write_text("no snapshot")
        result = subprocess.run([*command, folder / "out"], capture_output=True, text=True, check=False)
        expect(result.returncode == 0 and "failed: one, seed 1: ended with 1" in result.stdout, f"a failed trial, found\n{result.stdout}")

        fit = study.fit(folder / "out/build/fit", [(x, 3 * x**-0.25) for x in (1e9, 4e9, 1e10, 7e11)])
        expect(abs(fit[0] - math.log(3)) < 1e-8 and abs(fit[1] + 0.25) < 1e-8 and abs(fit[3]) < 1e-6, f"the law, found {fit}")


if __name__ == "__main__":
    main()
