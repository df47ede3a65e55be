#!/usr/bin/env python3
"""The constants that errors print as the remedy: each compiles, and opens the folder that was refused.

usage: constants_test.py --program FILE --vocabulary DIR --compiler CXX --include DIR
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from programs_test import write_checkpoint


def blocks(at, layers, width, hidden, scales):
    for i in range(layers):
        block = f"{at}.resblocks.{i}."
        yield from ((f"{block}{norm}.{kind}", [width]) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias"))
        yield from ((block + "attn.in_proj_weight", [3 * width, width]), (block + "attn.in_proj_bias", [3 * width]))
        yield from ((block + "attn.out_proj.weight", [width, width]), (block + "attn.out_proj.bias", [width]))
        yield from ((block + "mlp.c_fc.weight", [hidden, width]), (block + "mlp.c_fc.bias", [hidden]))
        yield from ((block + "mlp.c_proj.weight", [width, hidden]), (block + "mlp.c_proj.bias", [width]))
        if scales:
            yield from ((f"{block}ls_{j}.gamma", [width]) for j in (1, 2))


def open_clip_tensors(config):
    """Names and shapes of open_clip's model of a small config."""
    vision, text, embed = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    height, width = (vision["image_size"],) * 2 if isinstance(vision["image_size"], int) else vision["image_size"]
    patch, channels, words = vision["patch_size"], vision["width"], text["width"]
    yield from (("logit_scale", []), ("positional_embedding", [text["context_length"], words]), ("token_embedding.weight", [text["vocab_size"], words]))
    yield from ((f"ln_final.{kind}", [words]) for kind in ("weight", "bias"))
    if text.get("proj_type") != "none":
        yield from (("text_projection.weight", [embed, words]), ("text_projection.bias", [embed])) if text.get("proj_bias") else (("text_projection", [words, embed]),)
    yield from (("visual.class_embedding", [channels]), ("visual.proj", [channels, embed]), ("visual.conv1.weight", [channels, 3, patch, patch]))
    yield ("visual.positional_embedding", [height // patch * (width // patch) + 1, channels])
    yield from ((f"visual.{norm}.{kind}", [channels]) for norm in (("ln_post",) if vision.get("no_ln_pre") else ("ln_pre", "ln_post")) for kind in ("weight", "bias"))
    if "init_logit_bias" in config:
        yield ("logit_bias", [])
    for at, tower in (("visual.transformer", vision), ("transformer", text)):
        yield from blocks(at, tower["layers"], tower["width"], int(tower["width"] * tower.get("mlp_ratio", 4)), tower.get("ls_init_value"))


VISION = {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 32, "layers": 1}
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TEXT_TOWER = {"model_type": "clip_text_model", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48,
              "vocab_size": 49408, "max_position_embeddings": 8, "hidden_act": "gelu", "eos_token_id": 7}  # fmt: skip
# Changes of an open_clip config whose constants an error prints.
CASES = {
    "plain": {},
    "no_causal_mask": {"text_cfg": {"no_causal_mask": True, "pool_type": "last"}},
    "first": {"text_cfg": {"pool_type": "first", "proj_bias": True}},
    "eos": {"text_cfg": {"pool_type": "eos", "eos_id": 49407}},
    "clipa": {"vision_cfg": {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, "text_cfg": {"no_causal_mask": True, "pool_type": "last"}},
    "parts": {"quick_gelu": True, "init_logit_bias": -10, "embed_dim": 32, "vision_cfg": {"ls_init_value": 0.1, "norm_kwargs": {"eps": 1e-6}, "mlp_ratio": 2.7},
              "text_cfg": {"act_kwargs": {}, "proj_type": "none", "norm_kwargs": {"eps": 1e-3}}},
    "wide": {"vision_cfg": {"image_size": [32, 64], "act_kwargs": {}}},
}  # fmt: skip


def text_tensors():
    yield from (("embeddings.token_embedding.weight", [49408, 32]), ("embeddings.position_embedding.weight", [8, 32]))
    at = "encoder.layers.0."
    for name in ("q", "k", "v", "out"):
        yield from ((f"{at}self_attn.{name}_proj.weight", [32, 32]), (f"{at}self_attn.{name}_proj.bias", [32]))
    yield from ((f"{at}layer_norm{i}.{kind}", [32]) for i in (1, 2) for kind in ("weight", "bias"))
    yield from ((at + "mlp.fc1.weight", [48, 32]), (at + "mlp.fc1.bias", [48]), (at + "mlp.fc2.weight", [32, 48]), (at + "mlp.fc2.bias", [32]))
    yield from ((f"final_layer_norm.{kind}", [32]) for kind in ("weight", "bias"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--program", "--vocabulary", "--compiler", "--include"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        captions = root / "captions.txt"
        captions.write_text("a cat\n")
        folders = {}
        for name, change in CASES.items():
            folder = folders[name] = root / name
            folder.mkdir()
            config = {"embed_dim": 24, "vision_cfg": VISION | change.get("vision_cfg", {}), "text_cfg": TEXT | change.get("text_cfg", {})}
            config |= {key: value for key, value in change.items() if not key.endswith("_cfg")}
            write_checkpoint(folder / "open_clip_model.safetensors", plan=open_clip_tensors(config))
            (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        tower = folders["tower"] = root / "tower"
        tower.mkdir()
        write_checkpoint(tower / "model.safetensors", plan=text_tensors())
        (tower / "config.json").write_text(json.dumps(TEXT_TOWER))

        program = "#include <cstdio>\n#include <tandem/tandem.hpp>\nnamespace td = tandem;\n"
        loads = ""
        for name, folder in folders.items():
            shutil.copy(Path(options.vocabulary) / "bpe_simple_vocab_16e6.txt.gz", folder)
            result = subprocess.run([options.program, "embed", "--weights", folder, "--texts", captions, "--out", root / "x.npy"], capture_output=True, text=True)
            found = re.search(r"inline constexpr td::ClipConfig mine = (.*);", result.stderr, re.S)
            if result.returncode != 1 or not found:
                sys.exit(f"{name}: expected an error that prints a constant, found\n{result.stderr}")
            # A tower without a projection has tokens alone.
            towers = ", {.towers = td::Towers::text, .tokens_only = true}" if name == "tower" else ""
            program += f"inline constexpr td::ClipConfig {name}_ = {found[1]};\n"
            loads += f'    td::load<{name}_>("{folder}"{towers});\n    std::puts("{name}");\n'
        source, binary = root / "constants.cpp", root / "constants"
        source.write_text(program + "int main() {\n" + loads + "}\n")
        compiled = subprocess.run([options.compiler, "-std=c++20", "-O0", f"-I{options.include}", source, "-o", binary, "-ltbb", "-ljpeg", "-lpng", "-lutf8proc", "-lz"],
                                  capture_output=True, text=True)  # fmt: skip
        if compiled.returncode:
            sys.exit(f"a constant does not compile:\n{compiled.stderr[:4000]}\n{program}")
        opened = subprocess.run([binary], capture_output=True, text=True)
        if opened.returncode or len(opened.stdout.splitlines()) != len(folders):
            sys.exit(f"a folder is not opened by its constant:\n{opened.stdout}{opened.stderr}\n{program}")
        print(f"{len(opened.stdout.splitlines())} constants compile and open their folders")


if __name__ == "__main__":
    main()
