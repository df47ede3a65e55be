#!/usr/bin/env python3
"""Checkpoints of the field's families at their real sizes, with random weights, against tandem's zoo.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/parity/families.py --full ViT-B-32 [NAME ...]     or --list

Each is written by the library that publishes such checkpoints, as a folder with its config; a program for its
architecture loads the folder, and its embeddings are compared. Needs twice the checkpoint's size in memory and once on
disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"

# Names of transformers' checkpoints: (constant, sizes of the image tower, of the text tower, width of the embedding).
BASE, LARGE = {}, {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
GOPT = {"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 40, "num_attention_heads": 16}
CLIP_TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
V2 = {"vocab_size": 256000}
TRANSFORMERS = {
    "openai/clip-vit-base-patch32": ("with_activation(td::vit_b_32, td::QuickGelu{})", BASE, {}, 512),
    "openai/clip-vit-base-patch16": ("with_activation(td::vit_b_16, td::QuickGelu{})", {"patch_size": 16}, {}, 512),
    "openai/clip-vit-large-patch14": (
        "with_activation(td::vit_l_14, td::QuickGelu{})", LARGE | {"patch_size": 14}, CLIP_TEXT_L, 768),
    "openai/clip-vit-large-patch14-336": (
        "with_activation(td::vit_l_14_336, td::QuickGelu{})", LARGE | {"patch_size": 14, "image_size": 336}, CLIP_TEXT_L, 768),
    "google/siglip-base-patch16-224": ("vit_b_16_siglip", BASE, {}, None),
    "google/siglip-base-patch16-384": ("vit_b_16_siglip_384", {"image_size": 384}, {}, None),
    "google/siglip-large-patch16-256": ("vit_l_16_siglip_256", LARGE | {"image_size": 256}, LARGE, None),
    "google/siglip-so400m-patch14-224": (
        "vit_so400m_14_siglip", SO400M | {"patch_size": 14}, SO400M | {"max_position_embeddings": 16}, None),
    "google/siglip-so400m-patch14-384": (
        "vit_so400m_14_siglip_384", SO400M | {"patch_size": 14, "image_size": 384}, SO400M, None),
    "google/siglip2-base-patch32-256": ("vit_b_32_siglip2_256", {"image_size": 256, "patch_size": 32}, V2, None),
    "google/siglip2-base-patch16-224": ("vit_b_16_siglip2", BASE, V2, None),
    "google/siglip2-large-patch16-512": ("vit_l_16_siglip2_512", LARGE | {"image_size": 512}, LARGE | V2, None),
    "google/siglip2-so400m-patch16-256": ("vit_so400m_16_siglip2_256", SO400M | {"image_size": 256}, SO400M | V2, None),
    "google/siglip2-giant-opt-patch16-256": (
        "vit_gopt_16_siglip2_256", GOPT | {"image_size": 256}, SO400M | V2 | {"projection_size": 1536}, None),
}  # fmt: skip
OPEN_CLIP = [
    "ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-32-256", "ViT-B-16", "ViT-B-16-quickgelu", "ViT-B-16-plus-240", "ViT-L-14",
    "ViT-L-14-quickgelu", "ViT-L-14-336", "ViT-H-14", "ViT-H-14-quickgelu", "ViT-g-14", "ViT-bigG-14",
    "ViT-B-16-SigLIP", "ViT-B-16-SigLIP-256", "ViT-B-16-SigLIP-384", "ViT-B-16-SigLIP-512", "ViT-B-16-SigLIP-i18n-256",
    "ViT-L-16-SigLIP-256", "ViT-L-16-SigLIP-384", "ViT-SO400M-14-SigLIP", "ViT-SO400M-14-SigLIP-378",
    "ViT-SO400M-14-SigLIP-384", "ViT-SO400M-16-SigLIP-i18n-256", "ViT-B-32-SigLIP2-256", "ViT-B-16-SigLIP2",
    "ViT-B-16-SigLIP2-256", "ViT-B-16-SigLIP2-384", "ViT-B-16-SigLIP2-512", "ViT-L-16-SigLIP2-256",
    "ViT-L-16-SigLIP2-384", "ViT-L-16-SigLIP2-512", "ViT-SO400M-14-SigLIP2", "ViT-SO400M-14-SigLIP2-378",
    "ViT-SO400M-16-SigLIP2-256", "ViT-SO400M-16-SigLIP2-384", "ViT-SO400M-16-SigLIP2-512", "ViT-gopt-16-SigLIP2-256",
    "ViT-gopt-16-SigLIP2-384",
]  # fmt: skip
# Rounding grows with depth and width: up to L/14 the bar is 1e-5.
LARGER = ("ViT-H", "ViT-g", "ViT-bigG", "SO400M", "so400m", "giant")


def draw_inputs(items, image_size, context, vocabulary):
    """Images, and captions that fill the context, are empty, or something between; the highest id ends them."""
    images = torch.randn(items, 3, image_size, image_size)
    tokens = torch.zeros(items, context, dtype=torch.int64)
    for row, length in zip(tokens, [context, 2, *torch.randint(3, context, (items - 2,)).tolist()]):
        row[: length - 1] = torch.randint(1, vocabulary - 2, (length - 1,))
        row[length - 1] = vocabulary - 1
    return images, tokens


def make_transformers(name, folder, items):
    import transformers

    constant, vision, text, embedding = TRANSFORMERS[name]
    if name.startswith("openai/"):
        config = transformers.CLIPConfig(
            vision_config=vision, text_config=text | {"bos_token_id": 49406, "eos_token_id": 49407}, projection_dim=embedding
        )
        model = transformers.CLIPModel(config)
    else:
        # Siglip's text tower has its image tower's kind of sizes.
        sizes = {key: value for key, value in text.items() if key not in ("image_size", "patch_size")}
        sizes.setdefault("projection_size", sizes.get("hidden_size", 768))
        config = transformers.SiglipConfig(vision_config=vision, text_config=sizes | {"bos_token_id": None, "eos_token_id": None})
        model = transformers.SiglipModel(config)
    model.eval()
    model.save_pretrained(folder)
    text_config = config.text_config
    images, tokens = draw_inputs(items, config.vision_config.image_size, text_config.max_position_embeddings, text_config.vocab_size)
    output = model(input_ids=tokens, pixel_values=images)
    return constant, images, tokens, output.image_embeds, output.text_embeds


def open_clip_constant(name, config):
    plain = name.removesuffix("-quickgelu")
    constant = "td::" + plain.lower().replace("-", "_")
    if plain != name:
        return f"with_activation({constant}, td::QuickGelu{{}})"
    timm = config["vision_cfg"].get("timm_model_name")
    if timm is None:
        return constant.removeprefix("td::")
    import timm as library

    trunk = library.create_model(timm, num_classes=0, global_pool="map")
    approximate = getattr(trunk.blocks[0].mlp.act, "approximate", "none") == "tanh" or "Tanh" in type(trunk.blocks[0].mlp.act).__name__
    of_image = "TanhGelu" if approximate else "Gelu"
    of_text = "TanhGelu" if config["text_cfg"].get("act_kwargs", {}).get("approximate") == "tanh" else "Gelu"
    return f"with_activation({constant}, td::{of_image}{{}}, td::{of_text}{{}})"


def make_open_clip(name, folder, items):
    import open_clip

    config = open_clip.get_model_config(name)
    model = open_clip.create_model(name, pretrained=None, load_weights=False).eval()
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    size = config["vision_cfg"]["image_size"]
    images, tokens = draw_inputs(items, size, config["text_cfg"]["context_length"], config["text_cfg"]["vocab_size"])
    image, text = model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)
    return open_clip_constant(name, config), images, tokens, image, text


def check(name, options):
    """Whether tandem gives the same embeddings."""
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, torch.no_grad():
        folder = Path(temporary) / "checkpoint"
        torch.manual_seed(options.seed)
        make = make_transformers if name in TRANSFORMERS else make_open_clip
        constant, images, tokens, image, text = make(name, folder, options.items)
        expected = {
            "input/image": images,
            "input/tokens": tokens.to(torch.int32),
            "embedding/image": image.contiguous(),
            "embedding/text": text.contiguous(),
        }
        save_file(expected, folder / "expected.safetensors")
        program = Path(temporary) / "family_test"
        architecture = constant if constant.startswith("td::") else f"td::{constant}"
        build = [options.compiler, "-std=c++20", "-O1", f"-I{INCLUDE}", f"-DTANDEM_FAMILY={architecture}",
                 HERE / "family_test.cpp", "-o", program, "-ltbb"]  # fmt: skip
        bar = "2e-5" if any(part in name for part in LARGER) else "1e-5"
        print(f"{name}: {architecture}", flush=True)
        return subprocess.run(build).returncode == 0 and subprocess.run([program, folder, bar]).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", nargs="+", metavar="NAME", help="of --list, at its real size")
    parser.add_argument("--list", action="store_true", help="the names")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and inputs (default 0)")
    parser.add_argument("--items", type=int, default=3, metavar="N", help="images and captions, at least 2 (default 3)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for the checkpoints (default: the system's temporary one)")
    parser.add_argument("--compiler", default="g++")
    options = parser.parse_args()
    names = [*TRANSFORMERS, *OPEN_CLIP]
    if options.list or not options.full:
        print("\n".join(names))
        return 0
    unknown = set(options.full) - set(names)
    if unknown or options.items < 2:
        parser.error(f"--full: unknown {', '.join(sorted(unknown))}; see --list" if unknown else "--items: expected 2 or more")
    failed = [name for name in options.full if not check(name, options)]
    print(f"{len(options.full) - len(failed)} of {len(options.full)} families agree" + "".join(f"\n  not {name}" for name in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
