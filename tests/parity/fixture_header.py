#!/usr/bin/env python3
"""Prints a C++ header with the configuration of one parity fixture. Standard library only.

usage: fixture_header.py FILE.safetensors
"""

import json
import struct
import sys

ACTIVATIONS = {"gelu": "Gelu", "quick_gelu": "QuickGelu", "gelu_pytorch_tanh": "TanhGelu"}
POOLINGS = {"tok": "ClassToken", "avg": "Average", "map": "AttentionPool"}
TEXT_POOLINGS = {"argmax": "Eot", "last": "Last"}


def read_metadata(path):
    """The __metadata__ object of a safetensors file."""
    with open(path, "rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError("expected a safetensors file, found less than 8 bytes")
        (length,) = struct.unpack("<Q", prefix)
        if length > 100_000_000:
            raise ValueError(f"expected a header of at most 100000000 bytes, found {length}")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise ValueError("expected a safetensors file, found a header that is not JSON") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or "config" not in metadata:
        raise ValueError("expected __metadata__ with config, as make_fixtures.py writes it")
    return metadata


def reference_field(key, value):
    """A field of reference.py's configurations, which are tandem's own, as a designated initialiser."""
    if key in ("pos_embed_type", "norm_position"):
        kind = {"pos_embed_type": "PosEmbed", "norm_position": "NormPosition"}[key]
        value = f"tandem::{kind}::{value}"
    elif isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, str):
        value = f"tandem::{value}{{}}"
    elif isinstance(value, dict):
        value = "{" + ", ".join(f".{name} = {number}" for name, number in value.items()) + "}"
    elif key == "image":
        value = size_text(value)
    return f".{key} = {value}"


def size_text(image):
    return str(image) if isinstance(image, int) else "{" + ", ".join(map(str, image)) + "}"


def towers(config):
    """The initialisers of both towers' configs."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if config["library"] == "torch":
        return tuple(", ".join(reference_field(key, value) for key, value in tower.items() if value is not None) for tower in (vision, text))
    activation = f"tandem::{ACTIVATIONS[config['activation']]}{{}}"

    def options(tower, *keys):
        return "".join(f"{reference_field(key, tower[key])}, " for key in keys if tower.get(key))

    is_siglip = vision["pool_type"] == "map"
    siglip_vision = ".class_token = false, .no_ln_pre = true, " if is_siglip else ""
    siglip_parts = (
        ".patch_bias = true, .floor_patches = true, .proj_type = tandem::Projection::none, " if is_siglip else ""
    )
    siglip_norm = ".norm = tandem::LayerNorm{1e-6f}, " if is_siglip else ""
    if is_siglip:
        text = {"no_causal_mask": True, "pool_type": "last"} | text

    # In the order of the configs' fields.
    image = (
        f".image = {size_text(vision['image_size'])}, .patch = {vision['patch_size']}, .width = {vision['width']}, "
        f".layers = {vision['layers']}, .heads = {vision['width'] // vision['head_width']}, "
        f".mlp_ratio = {float(vision['mlp_ratio'])!r}, {siglip_vision}"
        f"{options(vision, 'no_ln_pre', 'final_ln_after_pool', 'qk_norm', 'ls_init_value')}"
        f"{siglip_parts}{siglip_norm}"
        f".activation = {activation}, .pooling = tandem::{POOLINGS[vision['pool_type']]}{{}}"
    )
    caption = (
        f".vocabulary = {text['vocab_size']}, .context = {text['context_length']}, .width = {text['width']}, "
        f".layers = {text['layers']}, .heads = {text['heads']}, .mlp_ratio = {float(text['mlp_ratio'])!r}, "
        f".causal = {str(not text.get('no_causal_mask', False)).lower()}, "
        f"{options(text, 'qk_norm', 'ls_init_value')}"
        f"{'.proj_bias = true, ' if is_siglip else ''}{siglip_norm}"
        f".activation = {activation}, .pooling = tandem::{TEXT_POOLINGS[text.get('pool_type', 'argmax')]}{{}}"
    )
    return image, caption


def cpp_header(config):
    """The header's text for a configuration as make_fixtures.py writes it."""
    if "architecture" in config:
        architecture = config["architecture"]
    else:
        image, caption = towers(config)
        architecture = f"""tandem::ClipConfig{{
    .vision = tandem::VitConfig{{{image}}},
    .text = tandem::TextConfig{{{caption}}},
    .embedding = {config["embed_dim"]},
    .logit_bias = {"true" if config["loss"] == "siglip" else "false"},
    .shared = {"true" if config.get("shared") else "false"}}}"""
    has_outputs = config["library"] in ("transformers", "transformers_siglip")
    return f"""// The configuration of the parity fixture {config["name"]}, printed by fixture_header.py.
#pragma once

#include <cstddef>

#include <tandem/models/zoo.hpp>

inline constexpr auto fixture = {architecture};
inline constexpr std::size_t fixture_batch = {config["batch"]};
inline constexpr bool fixture_siglip = {"true" if config["loss"] == "siglip" else "false"};
inline constexpr bool fixture_has_outputs = {"true" if has_outputs else "false"};
inline constexpr const char* fixture_library = "{config["library"]}";
inline constexpr const char* fixture_name = "{config["name"]}";
"""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    path = sys.argv[1]
    try:
        print(cpp_header(json.loads(read_metadata(path)["config"])), end="")
    except KeyError as error:
        sys.exit(f"fixture_header.py: {path}: config: missing or unknown {error}")
    except (OSError, ValueError) as error:
        sys.exit(f"fixture_header.py: {path}: {error}")


if __name__ == "__main__":
    main()
