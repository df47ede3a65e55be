#!/usr/bin/env python3
"""Prints a C++ header with the configuration of one parity fixture. Standard library only.

usage: fixture_header.py FILE.safetensors
"""

import json
import struct
import sys

ACTIVATIONS = {"gelu": "Gelu", "quick_gelu": "QuickGelu", "gelu_pytorch_tanh": "TanhGelu"}
POOLINGS = {"tok": "ClassToken", "avg": "Average"}


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


def cpp_header(config):
    """The header's text for a configuration as make_fixtures.py writes it."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    activation = f"tandem::{ACTIVATIONS[config['activation']]}{{}}"
    pooling = f"tandem::{POOLINGS[vision['pool_type']]}{{}}"
    image = (
        f".image = {vision['image_size']}, .patch = {vision['patch_size']}, .width = {vision['width']}, "
        f".layers = {vision['layers']}, .heads = {vision['width'] // vision['head_width']}, "
        f".mlp_ratio = {float(vision['mlp_ratio'])!r}, .activation = {activation}, .pooling = {pooling}"
    )
    caption = (
        f".vocabulary = {text['vocab_size']}, .context = {text['context_length']}, .width = {text['width']}, "
        f".layers = {text['layers']}, .heads = {text['heads']}, "
        f".mlp_ratio = {float(text['mlp_ratio'])!r}, .activation = {activation}"
    )
    return f"""// The configuration of the parity fixture {config["name"]}, printed by fixture_header.py.
#pragma once

#include <cstddef>

#include <tandem/models/config.hpp>

inline constexpr tandem::ClipConfig fixture{{
    .vision = tandem::VitConfig{{{image}}},
    .text = tandem::TextConfig{{{caption}}},
    .embedding = {config["embed_dim"]},
    .logit_bias = {"true" if config["loss"] == "siglip" else "false"}}};
inline constexpr std::size_t fixture_batch = {config["batch"]};
inline constexpr bool fixture_siglip = {"true" if config["loss"] == "siglip" else "false"};
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
