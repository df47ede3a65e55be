#!/usr/bin/env python3
"""Writes parity fixtures: small open_clip, transformers and torch.nn models with what PyTorch computes from them.

Run it with the interpreter that venv.sh makes. One safetensors file per model; README.md lists its tensors.
"""

import argparse
import json
import math
import random
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save

import reference

ACTIVATIONS = ("gelu", "quick_gelu", "gelu_pytorch_tanh")
VISION_KEYS = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio", "pool_type"}
TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
# Options of open_clip that a configuration may leave out, with its defaults.
VISION_OPTIONS = {"ls_init_value": None, "qk_norm": False, "no_ln_pre": False, "final_ln_after_pool": False}
TEXT_OPTIONS = {"ls_init_value": None, "qk_norm": False, "no_causal_mask": False, "pool_type": "argmax"}
# SigLIP's towers: transformers' SiglipModel, and open_clip with an image tower of timm.
SIGLIP_LIBRARIES = ("transformers_siglip", "open_clip_timm")
# Towers that are no transformers of open_clip's own: their configurations name tandem's architecture, and are not drawn.
OTHER_TOWERS = ("open_clip_resnet", "open_clip_xlm_roberta", "transformers_align")
TOP_KEYS = {"name", "library", "embed_dim", "vision_cfg", "text_cfg", "activation", "batch", "loss", "logit_scale"}

LOGIT_SCALE_MAX = math.log(100)
ADAMW = {"steps": 20, "rate": 1e-3, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6, "weight_decay": 0.2}

# A fixture whose own float32 rounding comes near the bars of the parity test would test luck: see `measure`.
BARS = {"embedding": 1e-5, "gradient": 1e-4, "losses": 1e-4}


class ConfigError(Exception):
    pass


def check(condition, message):
    if not condition:
        raise ConfigError(message)


def read_config(path):
    try:
        return normalise(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error


def normalise(config):
    """Checks a configuration and returns it with every default written out."""
    check(isinstance(config, dict), "expected a JSON object")
    if config.get("library") == "torch":
        return normalise_reference(config)
    if config.get("library") in OTHER_TOWERS:
        keys = {"name", "library", "architecture", "embed_dim", "vision_cfg", "text_cfg", "batch"}
        check(set(config) == keys, f"expected the keys {sorted(keys)}, found {sorted(config)}")
        return {"loss": "clip", "logit_scale": None} | config
    config = dict(config)
    quick = config.pop("quick_gelu", None)
    check(quick is None or "activation" not in config, "expected quick_gelu or activation, found both")
    config.setdefault("activation", "quick_gelu" if quick else "gelu")
    scale = config.setdefault("logit_scale", None)
    check(scale is None or type(scale) in (int, float), f"logit_scale: expected a number, found {scale!r}")
    check(set(config) == TOP_KEYS, f"expected the keys {sorted(TOP_KEYS)}, found {sorted(config)}")
    check(re.fullmatch(r"[A-Za-z0-9_]+", str(config["name"])), "name: expected letters, digits and underscores")
    libraries = ("open_clip", "transformers", *SIGLIP_LIBRARIES)
    check(config["library"] in libraries, f"library: expected one of {', '.join(libraries)}")
    is_siglip = config["library"] in SIGLIP_LIBRARIES
    check(config["activation"] in ACTIVATIONS, f"activation: expected one of {', '.join(ACTIVATIONS)}")
    check(config["loss"] in ("clip", "siglip"), "loss: expected clip or siglip")

    for tower in ("vision_cfg", "text_cfg"):
        check(isinstance(config[tower], dict), f"{tower}: expected an object, found {config[tower]!r}")
    vision = config["vision_cfg"] = {"mlp_ratio": 4.0, "pool_type": "map" if is_siglip else "tok"} | config["vision_cfg"]
    text = config["text_cfg"] = {"mlp_ratio": 4.0} | config["text_cfg"]
    for tower, cfg, keys, options in (
        ("vision_cfg", vision, VISION_KEYS, VISION_OPTIONS),
        ("text_cfg", text, TEXT_KEYS, TEXT_OPTIONS),
    ):
        found = set(cfg) - set(options)
        check(found == keys, f"{tower}: expected the keys {sorted(keys)}, found {sorted(found)}")
    poolings = ("map",) if is_siglip else ("tok", "avg")
    check(vision["pool_type"] in poolings, f"vision_cfg.pool_type: expected {' or '.join(poolings)}")
    sizes = {"embed_dim": config["embed_dim"], "batch": config["batch"]}
    sizes |= {f"vision_cfg.{k}": v for k, v in vision.items() if k in VISION_KEYS - {"mlp_ratio", "pool_type"}}
    sizes |= {f"text_cfg.{k}": v for k, v in text.items() if k in TEXT_KEYS - {"mlp_ratio"}}
    if isinstance(vision["image_size"], list) and len(vision["image_size"]) == 2:
        del sizes["vision_cfg.image_size"]
        sizes |= {f"vision_cfg.image_size[{i}]": side for i, side in enumerate(vision["image_size"])}
    for key, value in sizes.items():
        check(type(value) is int and value > 0, f"{key}: expected a positive integer, found {value!r}")
    for tower, cfg in (("vision_cfg", vision), ("text_cfg", text)):
        ratio = cfg["mlp_ratio"]
        check(type(ratio) in (int, float) and int(cfg["width"] * ratio) > 0, f"{tower}.mlp_ratio: found {ratio!r}")

    check(config["batch"] >= 2, "batch: expected 2 or more, a contrastive loss of one pair has no gradient")
    fits = all(side % vision["patch_size"] == 0 for side in reference.sides(vision["image_size"]))
    check(fits or config["library"] == "transformers_siglip", "vision_cfg.image_size: expected a multiple of patch_size")
    check(vision["width"] % vision["head_width"] == 0, "vision_cfg.width: expected a multiple of head_width")
    check(text["width"] % text["heads"] == 0, "text_cfg.width: expected a multiple of heads")
    check(text["context_length"] >= 3, "text_cfg.context_length: expected 3 or more")
    check(text["vocab_size"] >= 4, "text_cfg.vocab_size: expected 4 or more")
    if config["library"] == "transformers":
        check(config["loss"] == "clip", "loss: transformers' CLIPModel has no logit bias, so no siglip")
        check(vision["pool_type"] == "tok", "vision_cfg.pool_type: transformers' CLIPModel pools its class token only")
        options = (set(vision) & set(VISION_OPTIONS)) | (set(text) & set(TEXT_OPTIONS))
        check(not options, f"transformers' CLIPModel does not have {sorted(options)}")
    if is_siglip:
        check(config["loss"] == "siglip", "loss: these models are trained with siglip")
        widths = {config["embed_dim"], vision["width"], text["width"]}
        check(len(widths) == 1, f"embed_dim and both widths: expected one value, found {sorted(widths)}")
        check(config["activation"] != "quick_gelu", "activation: expected gelu or gelu_pytorch_tanh")
    return config


def normalise_reference(config):
    """The same for a model of reference.py, whose towers have tandem's own fields."""
    config = {"loss": "clip", "logit_scale": None, "shared": False} | config
    keys = TOP_KEYS - {"activation"} | {"shared"}
    check(set(config) == keys, f"expected the keys {sorted(keys)}, found {sorted(config)}")
    for tower, defaults in (("vision_cfg", reference.VISION), ("text_cfg", reference.TEXT)):
        unknown = set(config[tower]) - set(defaults)
        check(not unknown, f"{tower}: unknown keys {sorted(unknown)}")
        config[tower] = defaults | config[tower]
    return config


def with_random_shapes(config, seed):
    """The same library, activation, pooling and loss at shapes drawn from the seed; a reference model as it is."""
    if config["library"] in ("torch", *OTHER_TOWERS):
        return config
    draw = random.Random(f"{config['name']} {seed}")
    ratios = (1.5, 2, 2.5, 3, 4)
    patch, head = draw.randint(2, 8), draw.randint(3, 12)
    text_heads = draw.randint(1, 4)
    vision = {
        "image_size": patch * draw.randint(2, 5),
        "patch_size": patch,
        "width": head * draw.randint(1, 4),
        "layers": draw.randint(1, 3),
        "head_width": head,
        "mlp_ratio": draw.choice(ratios),
    }
    text = {
        "context_length": draw.randint(4, 20),
        "vocab_size": draw.randint(8, 90),
        "width": text_heads * draw.randint(3, 12),
        "heads": text_heads,
        "layers": draw.randint(1, 3),
        "mlp_ratio": draw.choice(ratios),
    }
    # A layer norm over a handful of channels is ill conditioned: its rounding would drown what the test looks for.
    for cfg, step in ((vision, head), (text, text_heads)):
        while cfg["width"] < 12:
            cfg["width"] += step
    embed_dim = draw.randint(6, 40)
    if config["library"] in SIGLIP_LIBRARIES:
        embed_dim = text["width"] = vision["width"]
        text["heads"] = vision["width"] // head
        if config["library"] == "transformers_siglip":
            vision["image_size"] += draw.randrange(patch)
    return normalise(
        config
        | {
            "embed_dim": embed_dim,
            "batch": draw.randint(2, 9),
            "vision_cfg": config["vision_cfg"] | vision,
            "text_cfg": config["text_cfg"] | text,
        }
    )


class OpenClip:
    """open_clip's CLIP class and losses."""

    def __init__(self, config):
        import open_clip
        from open_clip.loss import ClipLoss, SigLipLoss
        from open_clip.model import CLIP

        self.version, self.config = open_clip.__version__, config
        # open_clip has no flag for the tanh form: it reaches nn.GELU through act_kwargs.
        tanh = {"act_kwargs": {"approximate": "tanh"}} if config["activation"] == "gelu_pytorch_tanh" else {}
        siglip = config["loss"] == "siglip"
        # open_clip's SigLIP starts at bias -10, where the negatives' share of every gradient is below the test's bar.
        init = {"init_logit_scale": math.log(10), "init_logit_bias": -2.0} if siglip else {}
        self.model = CLIP(
            config["embed_dim"],
            config["vision_cfg"] | tanh,
            config["text_cfg"] | tanh,
            quick_gelu=config["activation"] == "quick_gelu",
            **init,
        )
        self.loss = SigLipLoss() if siglip else ClipLoss()

    def key_bias_rows(self, key, parameter):
        tower = self.config["vision_cfg" if key.startswith("visual.") else "text_cfg"]
        return key_bias_rows(key, parameter, tower.get("qk_norm", False))

    def __call__(self, image, tokens):
        """(normalised image embedding, normalised text embedding, loss)"""
        model = self.model
        image = model.encode_image(image, normalize=True)
        text = model.encode_text(tokens, normalize=True)
        bias = {} if model.logit_bias is None else {"logit_bias": model.logit_bias}
        return image, text, self.loss(image, text, logit_scale=model.logit_scale.exp(), **bias)


class Transformers:
    """transformers' CLIPModel and its own loss."""

    def __init__(self, config):
        import transformers

        self.version = transformers.__version__
        vision, text = config["vision_cfg"], config["text_cfg"]
        shared = {"hidden_act": config["activation"], "layer_norm_eps": 1e-5, "projection_dim": config["embed_dim"]}
        self.model = transformers.CLIPModel._from_config(
            transformers.CLIPConfig(
                projection_dim=config["embed_dim"],
                vision_config={
                    "image_size": vision["image_size"],
                    "patch_size": vision["patch_size"],
                    "hidden_size": vision["width"],
                    "num_hidden_layers": vision["layers"],
                    "num_attention_heads": vision["width"] // vision["head_width"],
                    "intermediate_size": int(vision["width"] * vision["mlp_ratio"]),
                }
                | shared,
                # It pools at the first eos_token_id, open_clip at the highest id: with the highest id both agree.
                text_config={
                    "max_position_embeddings": text["context_length"],
                    "vocab_size": text["vocab_size"],
                    "hidden_size": text["width"],
                    "num_hidden_layers": text["layers"],
                    "num_attention_heads": text["heads"],
                    "intermediate_size": int(text["width"] * text["mlp_ratio"]),
                    "bos_token_id": text["vocab_size"] - 2,
                    "eos_token_id": text["vocab_size"] - 1,
                    "pad_token_id": 0,
                }
                | shared,
            ),
            attn_implementation="eager",
        )

    @staticmethod
    def key_bias_rows(key, parameter):
        return key_bias_rows(key, parameter)

    def __call__(self, image, tokens):
        """(normalised image embedding, normalised text embedding, loss)"""
        output = self.model(input_ids=tokens, pixel_values=image, return_loss=True)
        return output.image_embeds, output.text_embeds, output.loss


def prefix_of(model):
    """Tokens in front of the patches: CLIP's class token; SigLIP has none."""
    return 1 if hasattr(model, "visual_projection") else 0


def patch_features(model, vision):
    """Embeddings of single patches, the last block as it is and as MaskCLIP, SCLIP and ClearCLIP have it: the papers' formulas."""
    tower, block = model.vision_model, model.vision_model.encoder.layers[-1]
    attention, entering = block.self_attn, vision.hidden_states[-2]
    normed = block.layer_norm1(entering)
    heads = lambda rows: rows.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    q, k, v = (heads(project(normed)) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    alike = lambda rows: torch.softmax(rows @ rows.transpose(-1, -2) / rows.shape[-1] ** 0.5, dim=-1)
    leave = lambda mixed: attention.out_proj(mixed.transpose(1, 2).flatten(2))
    whole = entering + leave((alike(q) + alike(k)) @ v)
    rows = {
        "plain": vision.hidden_states[-1],
        "mask_clip": leave(v),
        "sclip": whole + block.mlp(block.layer_norm2(whole)),
        "clear_clip": leave(alike(q) @ v),
    }

    def embed(patches):
        patches = tower.post_layernorm(patches[:, prefix_of(model) :])
        if hasattr(model, "visual_projection"):
            embeddings = model.visual_projection(patches)
        else:
            embeddings = tower.head(patches.flatten(0, 1).unsqueeze(1)).unflatten(0, patches.shape[:2])
        return torch.nn.functional.normalize(embeddings, dim=-1)

    return {f"patches_{name}": embed(found) for name, found in rows.items()}


def transformers_outputs(model, image, tokens):
    """What users build on beside embeddings: hidden states, attention, and the gradient of a similarity."""
    wanted = {"output_hidden_states": True, "output_attentions": True}
    vision, text = model.vision_model(pixel_values=image, **wanted), model.text_model(input_ids=tokens, **wanted)
    image = image.clone().requires_grad_()
    output = model(input_ids=tokens, pixel_values=image, **wanted)
    similarity = (output.image_embeds * output.text_embeds.detach()).sum()
    attention = output.vision_model_output.attentions[-1]
    slope = torch.autograd.grad(similarity, attention, retain_graph=True)[0]
    similarity.backward()
    relevance = torch.relu(attention * slope).mean(1).sum(1)
    return patch_features(model, vision) | {
        "image_relevance": relevance[:, prefix_of(model) :].contiguous(),
        "image_tokens": vision.hidden_states[-2],
        "text_tokens": text.hidden_states[-2],
        "text_tokens_normed": text.last_hidden_state,
        "image_attention": vision.attentions[-1],
        "text_attention": text.attentions[0],
        "similarity": similarity,
        "image_gradient": image.grad,
    }


class TransformersSiglip:
    """transformers' SiglipModel and its own loss."""

    def __init__(self, config):
        import transformers

        self.version = transformers.__version__
        vision, text = config["vision_cfg"], config["text_cfg"]
        shared = {"hidden_act": config["activation"], "layer_norm_eps": 1e-6}
        self.model = transformers.SiglipModel._from_config(
            transformers.SiglipConfig(
                vision_config={
                    "image_size": vision["image_size"],
                    "patch_size": vision["patch_size"],
                    "hidden_size": vision["width"],
                    "num_hidden_layers": vision["layers"],
                    "num_attention_heads": vision["width"] // vision["head_width"],
                    "intermediate_size": int(vision["width"] * vision["mlp_ratio"]),
                }
                | shared,
                text_config={
                    "max_position_embeddings": text["context_length"],
                    "vocab_size": text["vocab_size"],
                    "hidden_size": text["width"],
                    "num_hidden_layers": text["layers"],
                    "num_attention_heads": text["heads"],
                    "intermediate_size": int(text["width"] * text["mlp_ratio"]),
                    "projection_size": config["embed_dim"],
                    "bos_token_id": None,
                    "eos_token_id": None,
                }
                | shared,
            ),
            attn_implementation="eager",
        )
        start_siglip(self.model)

    @staticmethod
    def key_bias_rows(key, parameter):
        if key.endswith("head.attention.in_proj_bias"):
            third = parameter.shape[0] // 3
            return slice(third, 2 * third)
        return key_bias_rows(key, parameter)

    def __call__(self, image, tokens):
        """(normalised image embedding, normalised text embedding, loss)"""
        output = self.model(input_ids=tokens, pixel_values=image, return_loss=True)
        return output.image_embeds, output.text_embeds, output.loss


class OpenClipTimm:
    """open_clip's CustomTextCLIP, as its SigLIP configs make it, with a small image tower of timm."""

    def __init__(self, config):
        import open_clip
        import timm
        from open_clip.loss import SigLipLoss
        from timm.models.vision_transformer import VisionTransformer

        self.version = f"{open_clip.__version__}, timm {timm.__version__}"
        vision, text = config["vision_cfg"], config["text_cfg"]
        tanh = config["activation"] == "gelu_pytorch_tanh"
        self.model = open_clip.CustomTextCLIP(
            config["embed_dim"],
            {"image_size": 224, "timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"},
            {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
            | ({"act_kwargs": {"approximate": "tanh"}} if tanh else {})
            | text,
            init_logit_bias=-10,
        )
        # timm's models have names and fixed sizes: the same class, small.
        self.model.visual.trunk = VisionTransformer(
            img_size=vision["image_size"],
            patch_size=vision["patch_size"],
            embed_dim=vision["width"],
            depth=vision["layers"],
            num_heads=vision["width"] // vision["head_width"],
            mlp_ratio=vision["mlp_ratio"],
            class_token=False,
            global_pool="map",
            num_classes=0,
            act_layer="gelu_tanh" if tanh else "gelu",
        )
        start_siglip(self.model)
        self.loss = SigLipLoss()

    @staticmethod
    def key_bias_rows(key, parameter):
        if key.endswith("attn_pool.kv.bias"):
            return slice(0, parameter.shape[0] // 2)
        return key_bias_rows(key.replace("attn.qkv.bias", "attn.in_proj_bias"), parameter)

    def __call__(self, image, tokens):
        """(normalised image embedding, normalised text embedding, loss)"""
        image, text = self.model.encode_image(image, normalize=True), self.model.encode_text(tokens, normalize=True)
        return image, text, self.loss(image, text, self.model.logit_scale.exp(), self.model.logit_bias)


class OpenClipResNet(OpenClip):
    """open_clip's CLIP with a ModifiedResNet, whose batch norm trains by the batch."""

    def __init__(self, config):
        super().__init__(config | {"activation": "gelu", "vision_cfg": config["vision_cfg"] | {"patch_size": None}})

    def key_bias_rows(self, key, parameter):
        return key_bias_rows(key, parameter)


class OpenClipXlmRoberta:
    """open_clip's CustomTextCLIP with a small XLMRobertaModel."""

    def __init__(self, config):
        import open_clip
        import transformers
        from open_clip.loss import ClipLoss

        self.version = f"{open_clip.__version__}, transformers {transformers.__version__}"
        sizes = config["text_cfg"]
        hub = transformers.XLMRobertaConfig(
            type_vocab_size=1, layer_norm_eps=1e-5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            **{key: value for key, value in sizes.items() if key != "context"},
        )
        open_clip.hf_model.AutoConfig.from_pretrained = lambda name, **_: hub
        self.model = open_clip.CustomTextCLIP(
            config["embed_dim"], config["vision_cfg"], {"hf_model_name": "small", "hf_model_pretrained": False}
        )
        self.loss = ClipLoss()

    @staticmethod
    def key_bias_rows(key, parameter):
        return key_bias_rows(key, parameter)

    def __call__(self, image, tokens):
        """(normalised image embedding, normalised text embedding, loss)"""
        image, text = self.model.encode_image(image, normalize=True), self.model.encode_text(tokens, normalize=True)
        return image, text, self.loss(image, text, self.model.logit_scale.exp())


class TransformersAlign:
    """transformers' AlignModel, without dropouts, and InfoNCE without its label smoothing."""

    def __init__(self, config):
        import transformers
        from open_clip.loss import ClipLoss

        self.version = transformers.__version__
        text = {key: value for key, value in config["text_cfg"].items() if key != "context"}
        dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.model = transformers.AlignModel._from_config(
            transformers.AlignConfig(
                projection_dim=config["embed_dim"],
                text_config=text | dropouts,
                vision_config=config["vision_cfg"] | {"hidden_dim": config["embed_dim"], "drop_connect_rate": 0.0},
            ),
            attn_implementation="eager",
        )
        # No part of the embedding.
        self.model.text_model.pooler = None
        # transformers passes TensorFlow's momentum, the share that stays, for PyTorch's, the share that is new.
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.1
        # What the loss multiplies by is learned as a logarithm here: the fixture's steps are CLIP's.
        del self.model._parameters["temperature"]
        self.model.logit_scale = torch.nn.Parameter(torch.tensor(math.log(10)))
        self.loss = ClipLoss()

    def key_bias_rows(self, key, parameter):
        # A batch norm behind the next convolution takes out what this bias adds, but for the last block's.
        is_last = f"blocks.{len(self.model.vision_model.encoder.blocks) - 1}." in key
        if key.endswith("project_bn.bias") and not is_last:
            return slice(None)
        return key_bias_rows(key, parameter)

    def __call__(self, image, tokens):
        """(normalised image embedding, normalised text embedding, loss)"""
        self.model.temperature = torch.exp(-self.model.logit_scale)
        output = self.model(input_ids=tokens, attention_mask=(tokens != 0).long(), pixel_values=image)
        return output.image_embeds, output.text_embeds, self.loss(output.image_embeds, output.text_embeds, self.model.logit_scale.exp())


def start_siglip(model):
    """SigLIP starts at bias -10, where the negatives' share of every gradient is below the test's bar."""
    torch.nn.init.constant_(model.logit_scale, math.log(10))
    torch.nn.init.constant_(model.logit_bias, -2.0)


def roughen(model, generator):
    """Moves every parameter off its initial value, so that no bias is 0 and no gain is 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 0:
                parameter += 0.1 * noise
            elif parameter.ndim == 1:
                parameter += 0.2 * noise
            else:
                # In the scale of the matrix itself, with a floor for embeddings that start near zero.
                parameter += max(0.3 * parameter.std().item(), 0.05) * noise


def draw_inputs(config, generator):
    """(image [N, 3, H, W] float32, tokens [N, context] int64)"""
    vision, text, batch = config["vision_cfg"], config["text_cfg"], config["batch"]
    if config["library"] in ("open_clip_xlm_roberta", "transformers_align"):
        return torch.randn(batch, 3, vision["image_size"], vision["image_size"], generator=generator), draw_padded(config, generator)
    size = reference.sides(vision["image"] if config["library"] == "torch" else vision["image_size"])
    image = torch.randn(batch, 3, *size, generator=generator)
    keys = ("context", "vocabulary") if config["library"] == "torch" else ("context_length", "vocab_size")
    context, vocabulary = (text[key] for key in keys)
    # The first row fills the context, so that every position has a gradient; the second is the empty text. Id 0 stands
    # in texts too: only the end-of-text token ends a text.
    lengths = torch.randint(2, context + 1, (batch,), generator=generator)
    lengths[0], lengths[1] = context, 2
    tokens = torch.zeros(batch, context, dtype=torch.int64)
    lowest = 1 if text.get("pad_id") == 0 else 0
    for row, length in zip(tokens, lengths.tolist()):
        row[0], row[length - 1] = vocabulary - 2, vocabulary - 1
        row[1 : length - 1] = torch.randint(lowest, vocabulary - 2, (length - 2,), generator=generator)
    return image, tokens


def draw_padded(config, generator):
    """Ids behind which there is padding; XLM-R's may also stand between."""
    text, batch = config["text_cfg"], config["batch"]
    is_xlm, context = config["library"] == "open_clip_xlm_roberta", text["context"]
    padding = 1 if is_xlm else 0
    tokens = torch.randint(2, text["vocab_size"], (batch, context), generator=generator)
    for row, length in zip(tokens[1:], [2, *torch.randint(2, context + 1, (batch - 2,), generator=generator).tolist()]):
        row[length:] = padding
    if is_xlm:
        tokens[0, 2] = padding
    return tokens


def key_bias_rows(key, parameter, normed=False):
    """The slice of a parameter that is a key bias, or None. Where keys are normed, it is the norm's bias.

    A key bias adds the same number to every score of a query; softmax does not see it. Its exact gradient is zero, and
    what PyTorch returns is rounding noise.
    """
    if normed:
        return slice(None) if key.endswith("ln_k.bias") else None
    if key.endswith("attn.in_proj_bias"):
        third = parameter.shape[0] // 3
        return slice(third, 2 * third)
    return slice(None) if key.endswith(("k_proj.bias", "self.key.bias")) else None


def evaluate(oracle, image, tokens):
    """Everything that the fixture holds beside weights and inputs, and the model trained for ADAMW["steps"] steps."""
    model = oracle.model
    image_embedding, text_embedding, loss = oracle(image, tokens)
    buffers = {key: value.clone() for key, value in model.named_buffers() if "running_" in key}
    if buffers:
        model.train()
        loss = oracle(image, tokens)[2]
    model.zero_grad(set_to_none=True)
    loss.backward()
    result = {
        "embedding/image": image_embedding.detach().clone(),
        "embedding/text": text_embedding.detach().clone(),
        "loss": loss.detach().clone(),
    }
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            result[f"gradient/{key}"] = parameter.grad.clone()
    for key, before in buffers.items():
        # A running mean's difference from the batch's, which an update moves it by a share of.
        after = model.get_buffer(key)
        result[f"gradient/{key}"] = (before - after) / model.get_submodule(key.rpartition(".")[0]).momentum
        after.copy_(before)
    result["adamw/losses"] = train(oracle, image, tokens)
    if buffers:
        model.eval()
        result["adamw/image"] = oracle(image, tokens)[0].detach().clone()
    return result


def train(oracle, image, tokens):
    """The loss before each AdamW step on one batch; parameter groups as in open_clip_train/main.py."""
    decay, no_decay = [], []
    for key, parameter in oracle.model.named_parameters():
        excluded = parameter.ndim < 2 or any(part in key for part in ("bn", "ln", "bias", "logit_scale"))
        (no_decay if excluded else decay).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": no_decay, "weight_decay": 0.0}, {"params": decay, "weight_decay": ADAMW["weight_decay"]}],
        lr=ADAMW["rate"],
        betas=(ADAMW["beta1"], ADAMW["beta2"]),
        eps=ADAMW["epsilon"],
    )
    losses = []
    for _ in range(ADAMW["steps"]):
        optimizer.zero_grad()
        loss = oracle(image, tokens)[2]
        losses.append(loss.detach().clone())
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            oracle.model.logit_scale.clamp_(0, LOGIT_SCALE_MAX)
    return torch.stack(losses)


def measure(name, oracle, single, double):
    """How far float32 is from float64 in each measure of the parity test; raises where a bar would test luck."""
    embedding = max((single[k] - double[k]).abs().max().item() for k in ("embedding/image", "embedding/text"))
    losses = (single["adamw/losses"] - double["adamw/losses"]).abs().max().item()
    gradient, worst = 0.0, ""
    for key, exact in double.items():
        if not key.startswith("gradient/"):
            continue
        found, exact = single[key].double().clone(), exact.clone()
        rows = oracle.key_bias_rows(key.removeprefix("gradient/"), exact)
        if rows is not None:
            found[rows] = exact[rows] = 0
        norm = exact.norm().item()
        if norm == 0 and rows is not None:
            continue
        check(norm > 1e-5, f"{name}: {key} has norm {norm:.1e}: expected a gradient clearly not zero")
        relative = (found - exact).norm().item() / norm
        if relative > gradient:
            gradient, worst = relative, key
    deviation = {"embedding": embedding, "gradient": gradient, "losses": losses}
    for measure_name, value in deviation.items():
        bar = BARS[measure_name]
        detail = f" ({worst})" if measure_name == "gradient" else ""
        check(
            value < bar / 3,
            f"{name}: float32 is {value:.1e} from float64 in {measure_name}{detail}, too near the bar of {bar:.0e}: "
            "choose another seed or shape",
        )
    return deviation


def make(config, seed):
    """(tensors, metadata) of one fixture"""
    torch.manual_seed(seed)
    oracles = {
        "open_clip": OpenClip,
        "transformers": Transformers,
        "torch": reference.Torch,
        "transformers_siglip": TransformersSiglip,
        "open_clip_timm": OpenClipTimm,
        "open_clip_resnet": OpenClipResNet,
        "open_clip_xlm_roberta": OpenClipXlmRoberta,
        "transformers_align": TransformersAlign,
    }
    oracle = oracles[config["library"]](config)
    model = oracle.model.eval()
    generator = torch.Generator().manual_seed(seed)
    roughen(model, generator)
    if config["logit_scale"] is not None:
        torch.nn.init.constant_(model.logit_scale, config["logit_scale"])
    image, tokens = draw_inputs(config, generator)

    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer += 0.3 * torch.randn(buffer.shape, generator=generator)
            if key.endswith("running_var"):
                buffer *= 0.5 + torch.rand(buffer.shape, generator=generator)
    kept = lambda key: not key.endswith(("num_batches_tracked", "position_ids", "token_type_ids"))
    weights = {key: value.detach().clone() for key, value in model.state_dict().items() if kept(key)}
    single = evaluate(oracle, image, tokens)
    model.double().load_state_dict(weights, strict=False)
    deviation = measure(config["name"], oracle, single, evaluate(oracle, image.double(), tokens))

    if config["library"] == "transformers_align":  # as its checkpoints have it
        weights["temperature"] = torch.exp(-weights.pop("logit_scale"))
    tensors = {f"weights/{key}": value for key, value in weights.items()}
    tensors |= {"input/image": image, "input/tokens": tokens.to(torch.int32)} | single
    if config["library"] in ("transformers", "transformers_siglip"):
        model.float().load_state_dict(weights)
        found = transformers_outputs(model, image, tokens)
        tensors |= {f"output/{key}": value.detach().clone() for key, value in found.items()}
    zero = [key for key, value in model.named_parameters() if oracle.key_bias_rows(key, value) is not None]
    metadata = {
        "config": json.dumps(config),
        "library": config["library"],
        "versions": json.dumps({"torch": torch.__version__, config["library"]: oracle.version}),
        "seed": str(seed),
        "adamw": json.dumps(ADAMW | {"logit_scale_min": 0.0, "logit_scale_max": LOGIT_SCALE_MAX}),
        "key_biases": json.dumps(zero),
        "float64_deviation": json.dumps(deviation),
    }
    return {key: value.contiguous() for key, value in tensors.items()}, metadata


def ordered(file):
    """The same safetensors file with a sorted header: the library writes metadata in an order that varies by run."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def main():
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write to, made if missing")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and inputs (default 0)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="one JSON configuration (default: configs/*.json)")
    parser.add_argument("--random-shapes", action="store_true", help="draw the shapes from the seed as well")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the order of summation, and so the file, does not depend on the machine's cores
    try:
        check(arguments.seed >= 0, f"--seed: expected 0 or more, found {arguments.seed}")
        paths = [arguments.config] if arguments.config else sorted((here / "configs").glob("*.json"))
        configs = [read_config(path) for path in paths]
        if arguments.random_shapes:
            configs = [with_random_shapes(config, arguments.seed) for config in configs]
        arguments.out.mkdir(parents=True, exist_ok=True)
        for config in configs:
            tensors, metadata = make(config, arguments.seed)
            path = arguments.out / f"{config['name']}.safetensors"
            path.write_bytes(ordered(save(tensors, metadata=metadata)))
            deviation = ", ".join(f"{k} {v:.1e}" for k, v in json.loads(metadata["float64_deviation"]).items())
            losses = tensors["adamw/losses"]
            print(f"{path}: loss {losses[0]:.4f} to {losses[-1]:.4f}; float32 from float64: {deviation}")
    except ConfigError as error:
        sys.exit(f"make_fixtures.py: {error}")


if __name__ == "__main__":
    main()
