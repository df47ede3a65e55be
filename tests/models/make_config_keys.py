#!/usr/bin/env python3
"""Writes fixtures/config_keys.jsonl: every key that the classes of open_clip and transformers take, set in turn to another value,
and what the library then does with the same weights: "same" outputs, "other" ones, or an error ("raises").

usage: make_config_keys.py fixtures/config_keys.jsonl      in the environment of tests/parity/venv.sh
"""

import copy
import dataclasses
import inspect
import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
import torch
import transformers
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from PIL import Image
from transformers.configuration_utils import PreTrainedConfig

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
transformers.logging.set_verbosity(transformers.logging.CRITICAL)

# Another value for a key of that name; for any other key, one of the same type as its default.
VALUES = {
    "layers": 2, "width": 32, "head_width": 4, "mlp_ratio": 2.0, "patch_size": 4, "image_size": 16, "ls_init_value": 0.1,
    "patch_dropout": 0.5, "pos_embed_type": "sin_cos_2d", "pool_type": "avg", "act_kwargs": {"approximate": "tanh"},
    "norm_kwargs": {"eps": 1e-2}, "block_type": "custom", "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "mlp",
    "timm_drop_path": 0.1, "context_length": 6, "vocab_size": 50, "hf_tokenizer_name": "somewhere", "tokenizer_mode": "clips",
    "tokenizer_kwargs": {"clean": "whitespace"}, "heads": 4, "proj_type": "none", "hf_model_name": "bert-base-uncased",
    "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler", "embed_dim": 6, "init_logit_bias": -10, "cast_dtype": "float32",
    "hidden_size": 16, "intermediate_size": 24, "projection_dim": 6, "projection_size": 6, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_channels": 1, "hidden_act": "relu", "layer_norm_eps": 1e-2, "max_position_embeddings": 6,
    "eos_token_id": 5, "bos_token_id": 3, "pad_token_id": 4, "model_type": "bert", "dtype": "bfloat16", "text_config": None,
    "vision_config": None, "id2label": {"0": "x"}, "label2id": {"x": 0}, "problem_type": "regression", "architectures": ["X"],
    "transformers_version": "4.0.0", "chunk_size_feed_forward": 5, "drop_connect_rate": 0.3, "hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3, "is_encoder_decoder": True, "output_hidden_states": True, "return_dict": False,
    "width_coefficient": 0.4, "depth_coefficient": 1.1, "kernel_sizes": [3, 3, 3, 3, 3, 3, 3], "in_channels": [32, 16, 24, 40, 80, 112, 160],
    "out_channels": [16, 24, 40, 80, 112, 192, 256], "depthwise_padding": [1], "strides": [1, 1, 2, 2, 1, 2, 1], "num_block_repeats": [1, 2, 2, 3, 3, 4, 2],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 4], "squeeze_expansion_ratio": 0.5, "hidden_dim": 2, "pooling_type": "max", "batch_norm_eps": 0.1,
    # of preprocessing
    "mode": "L", "mean": [0.1, 0.2, 0.3], "std": [0.3, 0.2, 0.1], "interpolation": "bilinear", "resize_mode": "squash", "fill_color": 9,
    "size": {"height": 20, "width": 20}, "crop_size": {"height": 20, "width": 20}, "resample": 2, "rescale_factor": 0.5, "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.3, 0.2, 0.1], "pad_size": {"height": 300, "width": 300}, "data_format": "channels_last", "input_data_format": "channels_first",
    "device": "cpu", "return_tensors": "np", "disable_grouping": True, "image_seq_length": 7,
}  # fmt: skip


def other(key, default):
    value = VALUES.get(key)
    if value is not None and value != default:
        return value
    if isinstance(default, bool) or default is None:
        return not default
    if isinstance(default, (int, float)):
        return default + 1
    return "something"


def outcome(run, base):
    try:
        with torch.no_grad():
            found = [each[0] if isinstance(each, tuple) else each for each in run()]
    except Exception:
        return "raises"
    # Sums depend on where tensors lie in memory, by a few units in the last place.
    same = all(a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-6) for a, b in zip(found, base))
    return "same" if same else "other"


def rows(kind, base, places, run):
    """`places`: paths of objects in the config, each with the keys and defaults of its class."""
    expected = run(base)
    again = run(base)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(expected, again)), kind
    yield {"kind": kind, "config": base}
    for path, fields in places:
        for key, default in fields.items():
            changed = copy.deepcopy(base)
            at = changed
            for part in path:
                at = at.setdefault(part, {})
            value = other(key, at.get(key, default))
            at[key] = value
            verdict = outcome(lambda: run(changed), expected)
            yield {"kind": kind, "key": ".".join([*path, key]), "value": value, "verdict": verdict}


def defaults(config_class):
    return {field.name: field.default for field in dataclasses.fields(config_class)}


def open_clip_rows():
    base = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 8, "patch_size": 2, "width": 16, "head_width": 8, "layers": 1},
        "text_cfg": {"context_length": 5, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1},
    }
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[38, 1, 2, 39, 0], [38, 5, 39, 0, 0]])

    def build(config):
        config = copy.deepcopy(config)
        return (CustomTextCLIP if config.pop("custom_text", False) else CLIP)(**config).eval()

    torch.manual_seed(0)
    weights = build(base).state_dict()

    def run(config):
        model = build(config)
        stored = weights
        if config.get("custom_text"):
            text = ("positional_embedding", "text_projection", "token_embedding", "transformer", "ln_final", "attn_mask")
            stored = {("text." + name if name.startswith(text) else name): tensor for name, tensor in weights.items()}
        model.load_state_dict(stored)
        return model.encode_image(images), model.encode_text(ids)

    top = {name: p.default for name, p in inspect.signature(CLIP.__init__).parameters.items() if name not in ("self", "vision_cfg", "text_cfg")}
    yield from rows("open_clip", base, [((), top | {"custom_text": False}), (("vision_cfg",), defaults(CLIPVisionCfg)),
                                        (("text_cfg",), defaults(CLIPTextCfg))], run)  # fmt: skip


def transformers_rows():
    text = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40,
            "max_position_embeddings": 5, "eos_token_id": 39}  # fmt: skip
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 2}
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[38, 1, 2, 39, 0], [38, 5, 39, 0, 0]])
    common = defaults(PreTrainedConfig)

    def pooled(result):
        return result if isinstance(result, torch.Tensor) else result[1] if isinstance(result, tuple) else result.pooler_output

    for family, dim in (("clip", {"projection_dim": 8}), ("siglip", {})):
        name = {"clip": "CLIP", "siglip": "Siglip"}[family]
        whole, config_class = getattr(transformers, name + "Model"), getattr(transformers, name + "Config")
        text_class, vision_class = getattr(transformers, name + "TextConfig"), getattr(transformers, name + "VisionConfig")
        base = {"model_type": family, **dim, "text_config": text, "vision_config": vision}
        torch.manual_seed(0)
        weights = whole(config_class(**copy.deepcopy(base))).state_dict()

        def run(config):
            if config.get("model_type") != family:
                raise ValueError("another class")
            model = whole(config_class(**copy.deepcopy(config))).eval()
            model.load_state_dict(weights)
            return pooled(model.get_image_features(pixel_values=images)), pooled(model.get_text_features(input_ids=ids))

        own = {key: value for key, value in (common | defaults(config_class)).items() if key not in ("text_config", "vision_config")}
        yield from rows(family, base, [((), own | {"model_type": family}), (("vision_config",), common | defaults(vision_class)),
                                       (("text_config",), common | defaults(text_class))], run)  # fmt: skip


def align_rows():
    text = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 9}
    base = {"model_type": "align", "projection_dim": 8, "text_config": text, "vision_config": {"width_coefficient": 0.2, "depth_coefficient": 0.1}}
    torch.manual_seed(0)
    build = lambda config: transformers.AlignModel(transformers.AlignConfig(**copy.deepcopy(config))).eval()
    weights = build(base).state_dict()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[2, 7, 3, 0, 0], [2, 5, 9, 3, 0]])

    def run(config):
        if config.get("model_type") != "align":
            raise ValueError("another class")
        model = build(config)
        model.load_state_dict(weights)
        found = (model.vision_model(pixel_values=images), model.text_model(input_ids=ids, attention_mask=(ids != 0).long()))
        return tuple(each[0] if isinstance(each, tuple) else each.last_hidden_state for each in found) + (
            found[0][1] if isinstance(found[0], tuple) else found[0].pooler_output,)  # fmt: skip

    common = defaults(PreTrainedConfig)
    own = {key: value for key, value in (common | defaults(transformers.AlignConfig)).items() if key not in ("text_config", "vision_config")}
    yield from rows("align", base, [((), own), (("vision_config",), common | defaults(transformers.AlignVisionConfig)),
                                    (("text_config",), common | defaults(transformers.AlignTextConfig))], run)  # fmt: skip


def open_clip_preprocess_rows():
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    draw = numpy.random.default_rng(0)
    picture = Image.fromarray(draw.integers(0, 256, (90, 70, 3), dtype=numpy.uint8))

    def run(config):
        merged = merge_preprocess_dict(PreprocessCfg(), config) | {"size": 64}  # the model's, as factory.py has it
        return (image_transform_v2(PreprocessCfg(**merged), is_train=False)(picture),)

    keys = {field.name: field.default for field in dataclasses.fields(PreprocessCfg)}
    yield from rows("open_clip preprocess", {}, [((), keys)], run)


def preprocess_rows():
    draw = numpy.random.default_rng(0)
    picture = Image.fromarray(draw.integers(0, 256, (260, 310, 3), dtype=numpy.uint8))
    for name in ("CLIP", "Siglip", "ViT", "Blip", "EfficientNet"):
        processor = getattr(transformers, name + "ImageProcessor")
        base = {"image_processor_type": name + "ImageProcessor"}

        def run(config):
            if config["image_processor_type"] != name + "ImageProcessor":
                raise ValueError("another class")
            made = processor(**{key: value for key, value in config.items() if key != "image_processor_type"})
            found = made(picture, return_tensors="pt")["pixel_values"]
            return (torch.as_tensor(numpy.asarray(found)),)

        keys = {key: getattr(processor, key, None) for key in processor.valid_kwargs.__annotations__}
        if name == "CLIP":
            keys["use_square_size"] = False
        yield from rows("preprocess " + name, base, [((), keys | {"image_processor_type": base["image_processor_type"]})], run)


TEXTS = ("A photo of a Cat", "naïve café  two", "a [MASK] <mask> <|endoftext|> b", "猫の写真 in Ａ", "don't  stop", "")


def tokenizer_rows(fixtures):
    """tokenizer_config.json beside the vocabularies of tests/texts/fixtures."""
    import gzip

    merges = gzip.open(fixtures / "bpe/bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    import open_clip.tokenizer

    encoder = dict(open_clip.tokenizer.SimpleTokenizer().encoder)
    for ours, theirs in (("<start_of_text>", "<|startoftext|>"), ("<end_of_text>", "<|endoftext|>")):
        encoder[theirs] = encoder.pop(ours)
    clip = {"vocab.json": json.dumps(encoder), "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n"}
    bert = {"vocab.txt": (fixtures / "word_piece/vocab.txt").read_bytes()}
    xlm = {"tokenizer.json": (fixtures / "xlm_roberta/tokenizer.json").read_bytes()}
    common = {"padding_side": "left", "truncation_side": "left", "model_max_length": 9, "split_special_tokens": True, "add_prefix_space": True,
              "clean_up_tokenization_spaces": True, "errors": "strict", "name_or_path": "x", "processor_class": "X", "tokenizer_class": "GPT2Tokenizer",
              "model_input_names": ["input_ids"], "padding": "longest", "additional_special_tokens": ["<x>"], "extra_special_tokens": ["<y>"],
              "do_lower_case": False, "pad_token": "!", "unk_token": "a", "bos_token": "a", "eos_token": "a", "mask_token": "cat", "cls_token": "a",
              "sep_token": "a", "chat_template": "x", "legacy": True, "sp_model_kwargs": {"enable_sampling": True}, "strip_accents": False,
              "tokenize_chinese_chars": False, "do_basic_tokenize": False, "never_split": ["cat"], "add_bos_token": False, "add_eos_token": False,
              "stride": 3, "pad_to_multiple_of": 8, "use_fast": False, "no_such_key": 1}  # fmt: skip
    for name, files in (("CLIP", clip), ("Bert", bert), ("XLMRoberta", xlm)):
        base = {"tokenizer_class": name + "Tokenizer"}

        def run(config):
            with tempfile.TemporaryDirectory() as folder:
                for file, contents in files.items():
                    data = contents if isinstance(contents, bytes) else contents.encode()
                    (Path(folder) / file).write_bytes(data)
                (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
                rows = [tokenizer(text, padding="max_length", truncation=True, max_length=12)["input_ids"] for text in TEXTS]
                return (torch.tensor(rows),)

        expected = run(base)
        yield {"kind": "tokenizer " + name, "config": base}
        for key, value in common.items():
            changed = base | {key: value}
            yield {"kind": "tokenizer " + name, "key": key, "value": value, "verdict": outcome(lambda: run(changed), expected)}


if __name__ == "__main__":
    fixtures = Path(__file__).resolve().parents[1] / "texts/fixtures"
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        for row in (*open_clip_rows(), *transformers_rows(), *align_rows(), *open_clip_preprocess_rows(), *preprocess_rows(), *tokenizer_rows(fixtures)):
            out.write(json.dumps(row) + "\n")
