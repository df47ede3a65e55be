#!/usr/bin/env python3
"""config_test.py PROGRAM COMPILER INCLUDE: what `tandem config` makes of open_clip's model configs.

The parameter counts are those of open_clip 3.3.0's own models of these configs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

VIT_B_32 = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
VIT_L_14_CLIPA = {
    "embed_dim": 768,
    "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14, "no_ln_pre": True,
                   "pool_type": "avg", "final_ln_after_pool": True},
    "text_cfg": {"context_length": 32, "vocab_size": 32000, "hf_tokenizer_name": "bert-base-uncased",
                 "tokenizer_kwargs": {"strip_sep_token": True}, "width": 768, "heads": 12, "layers": 12,
                 "pool_type": "last", "no_causal_mask": True},
}  # fmt: skip
VIT_SO400M_14_SIGLIP_384 = {
    "embed_dim": 1152,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 384, "timm_model_name": "vit_so400m_patch14_siglip_384", "timm_model_pretrained": False,
                   "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": {"context_length": 64, "vocab_size": 32000, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
                 "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 1152, "heads": 16, "layers": 27, "mlp_ratio": 3.7362,
                 "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}},
}  # fmt: skip
RN50 = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
EVERY_OPTION = {
    "model_cfg": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": [32, 32], "layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "mlp_ratio": 2.5,
                       "ls_init_value": 0.1, "patch_dropout": 0.5, "pos_embed_type": "sin_cos_2d", "qk_norm": True,
                       "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}, "attentional_pool": False},
        "text_cfg": {"context_length": 16, "vocab_size": 100, "width": 64, "heads": 4, "layers": 2, "ls_init_value": None,
                     "pool_type": "first"},
    }
}  # fmt: skip
WIDE = {"embed_dim": 512, "vision_cfg": {"image_size": [64, 128], "patch_size": 32}, "text_cfg": {}}
# Changes of WIDE that have no counterpart, and what is said of them.
REFUSED = (
    ({"multimodal_cfg": {"layers": 2}}, "multimodal_cfg.layers = 2"),
    ({"vision_cfg": {"layers": [3, 4, 6], "width": 64}}, "expected vision_cfg.layers = 4 stages, which a ResNet has, found 3, 4, 6"),
    ({"vision_cfg": {"layers": [3, 4, 6, 3], "image_size": [224, 192]}}, "a ResNet's images are square"),
    ({"text_cfg": {"proj_type": "mlp"}}, 'expected text_cfg.proj_type = linear or none, found "mlp"'),
    ({"text_cfg": {"no_such_field": 3}}, "text_cfg.no_such_field = 3"),
    ({"vision_cfg": {"timm_model_name": "convnext_base"}}, 'found "convnext_base"'),
    ({"text_cfg": {"hf_model_name": "roberta-base"}}, 'found "roberta-base"'),
)
EOS = {"embed_dim": 64, "vision_cfg": {}, "text_cfg": {"pool_type": "eos", "eos_id": 2, "vocab_size": 901629}}


def main():
    tool, compiler, include = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "2nd model.json"

        def run(config):
            path.write_text(config if isinstance(config, str) else json.dumps(config))
            return subprocess.run([tool, "config", path], text=True, capture_output=True, check=False)

        program = "#include <tandem/models/clip.hpp>\n#include <tandem/models/resnet.hpp>\nnamespace td = tandem;\n"
        for index, (config, parameters) in enumerate(
            ((VIT_B_32, 151277313), (VIT_L_14_CLIPA, 414210561), (VIT_SO400M_14_SIGLIP_384, 877960498), (RN50, 102007137),
             (WIDE, None), (EVERY_OPTION, None), (EOS, None))
        ):
            result = run(config)
            if result.returncode:
                sys.exit(f"translation failed:\n{result.stderr}")
            program += f"namespace c{index} {{\n{result.stdout}static_assert(sizeof(td::Clip<model_2nd_model>) > 0);\n"
            if parameters is not None:
                program += f"static_assert(td::parameter_count(model_2nd_model) == {parameters});\n"
            program += "}\n"
        for text in ("QuickGelu{}", ".pooling = td::Last{}", ".head", "PosEmbed::sin_cos_2d", "LayerNorm{.eps = 1e-06f}",
                     "TanhGelu{}", ".proj_bias = true", "Projection::none", ".floor_patches = true", ".patch_dropout = 0.5", ".logit_bias = true", ".qk_norm = true",
                     ".image = {64, 128}", ".pooling = td::First{}", ".pooling = td::Eos{2}", ".layers = {3, 4, 6, 3}, .width = 64}"):  # fmt: skip
            if text not in program:
                sys.exit(f"expected {text} in\n{program}")
        compiled = subprocess.run(
            [compiler, "-std=c++20", f"-I{include}", "-fsyntax-only", "-x", "c++", "-"], input=program, text=True, check=False
        )
        if compiled.returncode:
            sys.exit(f"does not compile:\n{program}")

        for change, expected in REFUSED:
            result = run(WIDE | change)
            if result.returncode != 1 or result.stdout or expected not in result.stderr:
                sys.exit(f"{change}: expected {expected}, found\n{result.stdout}{result.stderr}")
        help_text = subprocess.run([tool, "config", "--help"], text=True, capture_output=True, check=False)
        if help_text.returncode or "FILE.json" not in help_text.stdout:
            sys.exit(f"--help: expected the usage, found {help_text}")
        for text in ("{", "[]", '{"vision_cfg": 3, "text_cfg": {}}'):
            result = run(text)
            if result.returncode != 1 or str(path) not in result.stderr:
                sys.exit(f"{text}: expected an error that names the file, found\n{result.stdout}{result.stderr}")


if __name__ == "__main__":
    main()
