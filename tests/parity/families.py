#!/usr/bin/env python3
"""Checkpoints of the field's families at their real sizes, with random weights, through `tandem embed`.

    tests/parity/venv.sh
    cmake --preset user && cmake --build --preset user
    .venv-parity/bin/python tests/parity/families.py --full ViT-B-32 [NAME ...]     or --list

Each is written by the library that publishes such checkpoints, as a folder with its configs and a tokenizer; embed opens
the folder, and its embeddings of pictures and captions are compared with the library's own. Vocabularies that are not free
to copy are the small ones of tests/texts/fixtures, with the original's algorithm. Needs twice the checkpoint's size in
memory and once on disk.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOKENIZERS = ROOT / "tests/texts/fixtures"

# Names of transformers' checkpoints: (sizes of the image tower, of the text tower, width of the embedding).
BASE, LARGE = {}, {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
GOPT = {"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 40, "num_attention_heads": 16}
CLIP_TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
V2 = {"vocab_size": 256000}
TRANSFORMERS = {
    "openai/clip-vit-base-patch32": (BASE, {}, 512),
    "openai/clip-vit-base-patch16": ({"patch_size": 16}, {}, 512),
    "openai/clip-vit-large-patch14": (LARGE | {"patch_size": 14}, CLIP_TEXT_L, 768),
    "openai/clip-vit-large-patch14-336": (LARGE | {"patch_size": 14, "image_size": 336}, CLIP_TEXT_L, 768),
    "kakaobrain/align-base": ({}, {}, 640),
    "google/siglip-base-patch16-224": (BASE, {}, None),
    "google/siglip-base-patch16-256": ({"image_size": 256}, {}, None),
    "google/siglip-base-patch16-384": ({"image_size": 384}, {}, None),
    "google/siglip-base-patch16-512": ({"image_size": 512}, {}, None),
    "google/siglip-base-patch16-256-multilingual": ({"image_size": 256}, {"vocab_size": 250000}, None),
    "google/siglip-large-patch16-256": (LARGE | {"image_size": 256}, LARGE, None),
    "google/siglip-large-patch16-384": (LARGE | {"image_size": 384}, LARGE, None),
    "google/siglip-so400m-patch14-224": (SO400M | {"patch_size": 14}, SO400M | {"max_position_embeddings": 16}, None),
    "google/siglip-so400m-patch14-384": (SO400M | {"patch_size": 14, "image_size": 384}, SO400M, None),
    "google/siglip-so400m-patch16-256-i18n": (SO400M | {"image_size": 256}, SO400M | {"vocab_size": 250000}, None),
    "google/siglip2-base-patch32-256": ({"image_size": 256, "patch_size": 32}, V2, None),
    "google/siglip2-base-patch16-224": (BASE, V2, None),
    "google/siglip2-base-patch16-256": ({"image_size": 256}, V2, None),
    "google/siglip2-base-patch16-384": ({"image_size": 384}, V2, None),
    "google/siglip2-base-patch16-512": ({"image_size": 512}, V2, None),
    "google/siglip2-large-patch16-256": (LARGE | {"image_size": 256}, LARGE | V2, None),
    "google/siglip2-large-patch16-384": (LARGE | {"image_size": 384}, LARGE | V2, None),
    "google/siglip2-large-patch16-512": (LARGE | {"image_size": 512}, LARGE | V2, None),
    "google/siglip2-so400m-patch14-224": (SO400M | {"patch_size": 14}, SO400M | V2, None),
    "google/siglip2-so400m-patch14-384": (SO400M | {"patch_size": 14, "image_size": 384}, SO400M | V2, None),
    "google/siglip2-so400m-patch16-256": (SO400M | {"image_size": 256}, SO400M | V2, None),
    "google/siglip2-so400m-patch16-384": (SO400M | {"image_size": 384}, SO400M | V2, None),
    "google/siglip2-so400m-patch16-512": (SO400M | {"image_size": 512}, SO400M | V2, None),
    "google/siglip2-giant-opt-patch16-256": (GOPT | {"image_size": 256}, SO400M | V2 | {"projection_size": 1536}, None),
    "google/siglip2-giant-opt-patch16-384": (GOPT | {"image_size": 384}, SO400M | V2 | {"projection_size": 1536}, None),
}  # fmt: skip
OPEN_CLIP = [
    "ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-32-256", "ViT-B-16", "ViT-B-16-quickgelu", "ViT-B-16-plus-240", "ViT-L-14",
    "ViT-L-14-quickgelu", "ViT-L-14-336", "ViT-H-14", "ViT-H-14-quickgelu", "ViT-g-14", "ViT-bigG-14",
    "RN50", "RN50-quickgelu", "RN101", "RN101-quickgelu", "RN50x4", "RN50x4-quickgelu", "RN50x16", "RN50x16-quickgelu", "RN50x64",
    "RN50x64-quickgelu", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP-256", "ViT-B-16-SigLIP-384", "ViT-B-16-SigLIP-512", "ViT-B-16-SigLIP-i18n-256",
    "ViT-L-16-SigLIP-256", "ViT-L-16-SigLIP-384", "ViT-SO400M-14-SigLIP", "ViT-SO400M-14-SigLIP-378",
    "ViT-SO400M-14-SigLIP-384", "ViT-SO400M-16-SigLIP-i18n-256", "ViT-B-32-SigLIP2-256", "ViT-B-16-SigLIP2",
    "ViT-B-16-SigLIP2-256", "ViT-B-16-SigLIP2-384", "ViT-B-16-SigLIP2-512", "ViT-L-16-SigLIP2-256",
    "ViT-L-16-SigLIP2-384", "ViT-L-16-SigLIP2-512", "ViT-SO400M-14-SigLIP2", "ViT-SO400M-14-SigLIP2-378",
    "ViT-SO400M-16-SigLIP2-256", "ViT-SO400M-16-SigLIP2-384", "ViT-SO400M-16-SigLIP2-512", "ViT-gopt-16-SigLIP2-256",
    "ViT-gopt-16-SigLIP2-384", "xlm-roberta-base-ViT-B-32", "xlm-roberta-large-ViT-H-14",
]  # fmt: skip
# Rounding grows with depth and width: up to L/14 the bar is 1e-5.
LARGER = ("ViT-H", "ViT-g", "ViT-bigG", "SO400M", "so400m", "giant")


CAPTIONS = ["a photo of a cat", "", "Two dogs, running -- on a beach!", "  ein  Fahrrad\tvor dem Haus ", "\u5bff\u53f8 \U0001f363 caf\u00e9", "it\u2019s 3 o'clock",
            " ".join(["a long caption that does not fit"] * 20)]  # fmt: skip


# Towers alone, as those who build on them ship them: (class, sizes, options of embed, what is compared).
TEXT_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "hidden_act": "gelu"}
VISION_H = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14, "hidden_act": "gelu"}
CLIP_VISION_L = LARGE | {"patch_size": 14, "image_size": 336}
LAST, BEFORE = ["--tokens"], ["--tokens", "--layer", "-2", "--no-norm"]
TOWERS = {
    "stable-diffusion-v1/text_encoder": ("CLIPTextModel", CLIP_TEXT_L | {"projection_dim": 768}, LAST, "last_hidden_state"),
    "stable-diffusion-v2/text_encoder": ("CLIPTextModel", TEXT_H | {"num_hidden_layers": 23}, LAST, "last_hidden_state"),
    "stable-diffusion-xl/text_encoder": ("CLIPTextModel", CLIP_TEXT_L | {"projection_dim": 768}, BEFORE, "hidden_states"),
    "stable-diffusion-3/text_encoder": ("CLIPTextModelWithProjection", CLIP_TEXT_L | {"projection_dim": 768}, [], "text_embeds"),
    "ip-adapter/image_encoder": ("CLIPVisionModelWithProjection", VISION_H | {"projection_dim": 1024}, [], "image_embeds"),
    "llava/vision_tower": ("CLIPVisionModel", CLIP_VISION_L, BEFORE, "hidden_states"),
    "siglip/vision_model": ("SiglipVisionModel", BASE, [], "pooler_output"),
    "siglip/vision_tokens": ("SiglipVisionModel", BASE, LAST, "last_hidden_state"),
    "siglip/text_model": ("SiglipTextModel", {}, [], "pooler_output"),
}


def draw_pictures(folder, count):
    """Photograph-like noise in odd sizes, as PNG and JPEG."""
    paths = []
    for i in range(count):
        width, height = random.randint(40, 700), random.randint(40, 700)
        coarse = Image.effect_noise((width // 8 + 1, height // 8 + 1), 90)
        picture = Image.merge("RGB", [coarse.rotate(90 * c).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)])
        paths.append(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
        picture.save(paths[-1])
    return paths


def write_clip_vocabulary(folder):
    """open_clip's merges as transformers keeps them."""
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    vocabulary = {token: i for token, i in tokenizer.encoder.items()}
    for ours, theirs in (("<start_of_text>", "<|startoftext|>"), ("<end_of_text>", "<|endoftext|>")):
        vocabulary[theirs] = vocabulary.pop(ours)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")


def siglip_tokenizer(folder, version):
    """The fixture's vocabulary in the folder, and what encodes a caption into the ids transformers gives."""
    import transformers
    from tokenizers import Tokenizer

    if version == 1:
        shutil.copy(TOKENIZERS / "sentence_piece/spiece.model", folder)
        tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"))
        return lambda text, context: tokenizer(text, padding="max_length", truncation=True, max_length=context)["input_ids"]
    shutil.copy(TOKENIZERS / "json_tokenizer/tokenizer.json", folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(text, context):
        tokenizer.enable_truncation(context)
        tokenizer.enable_padding(length=context, pad_id=0)
        return tokenizer.encode(text).ids

    return encode


def make_transformers(name, folder, pictures):
    import transformers

    vision, text, embedding = TRANSFORMERS[name]
    if name.startswith("openai/"):
        config = transformers.CLIPConfig(
            vision_config=vision, text_config=text | {"bos_token_id": 49406, "eos_token_id": 49407}, projection_dim=embedding
        )
        model = transformers.CLIPModel(config)
        vocabulary = folder / "original"
        vocabulary.mkdir()
        write_clip_vocabulary(vocabulary)
        clip = transformers.CLIPTokenizer(str(vocabulary / "vocab.json"), str(vocabulary / "merges.txt"))
        clip.save_pretrained(folder)  # a tokenizer.json
        encode = lambda text, context: clip(text, padding="max_length", truncation=True, max_length=context)["input_ids"]
        size = config.vision_config.image_size
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    elif name.endswith("align-base"):
        config = transformers.AlignConfig(vision_config={"hidden_dim": 640}, projection_dim=embedding, temperature_init_value=0.01)
        model = transformers.AlignModel(config)
        bert = transformers.BertTokenizer(str(TOKENIZERS / "word_piece/vocab.txt"))
        bert.save_pretrained(folder)  # a tokenizer.json
        encode = lambda text, _: bert(text, padding="max_length", truncation=True, max_length=64)["input_ids"]
        # What the hub has beside the checkpoint.
        processor = transformers.EfficientNetImageProcessor(
            size={"height": 346, "width": 346}, crop_size={"height": 289, "width": 289}, do_center_crop=True, resample=2,
            rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False, include_top=False,
        )  # fmt: skip
    else:
        # Siglip's text tower has its image tower's kind of sizes.
        sizes = {key: value for key, value in text.items() if key not in ("image_size", "patch_size")}
        sizes.setdefault("projection_size", sizes.get("hidden_size", 768))
        config = transformers.SiglipConfig(vision_config=vision, text_config=sizes | {"bos_token_id": None, "eos_token_id": None})
        model = transformers.SiglipModel(config)
        encode = siglip_tokenizer(folder, 2 if "siglip2" in name else 1)
        size = config.vision_config.image_size
        processor = transformers.SiglipImageProcessor(
            size={"height": size, "width": size}, **({"resample": 2} if "siglip2" in name else {})
        )
    model.eval()
    roughen(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    images = processor([Image.open(path).convert("RGB") for path in pictures], return_tensors="pt")["pixel_values"]
    tokens = torch.tensor([encode(caption, config.text_config.max_position_embeddings) for caption in CAPTIONS])
    mask = {"attention_mask": (tokens != 0).long()} if name.endswith("align-base") else {}
    output = model(input_ids=tokens, pixel_values=images, **mask)
    return output.image_embeds, output.text_embeds


def make_tower(name, folder, pictures):
    """A tower alone; its one output under embed's name for it."""
    import transformers

    kind, sizes, arguments, output = TOWERS[name]
    is_text, is_clip = "Text" in kind, kind.startswith("CLIP")
    family = "CLIP" if is_clip else "Siglip"
    ends = {"bos_token_id": 49406, "eos_token_id": 49407} if is_clip and is_text else {}
    config = getattr(transformers, family + ("TextConfig" if is_text else "VisionConfig"))(**sizes, **ends)
    model = getattr(transformers, kind)(config).eval()
    roughen(model)
    model.save_pretrained(folder)
    if is_text:
        context = config.max_position_embeddings
        if is_clip:
            vocabulary = folder / "original"
            vocabulary.mkdir()
            write_clip_vocabulary(vocabulary)
            padding = {"pad_token": "!"} if "v2" in name else {}  # as the repository has it
            clip = transformers.CLIPTokenizer(str(vocabulary / "vocab.json"), str(vocabulary / "merges.txt"), **padding)
            clip.save_pretrained(folder)
            encode = lambda text: clip(text, padding="max_length", truncation=True, max_length=context)["input_ids"]
        else:
            plain = siglip_tokenizer(folder, 1)
            encode = lambda text: plain(text, context)
        inputs = {"input_ids": torch.tensor([encode(caption) for caption in CAPTIONS])}
    else:
        size = config.image_size
        options = {"size": {"shortest_edge": size}, "crop_size": size} if is_clip else {"size": {"height": size, "width": size}}
        processor = getattr(transformers, family + "ImageProcessor")(**options)
        processor.save_pretrained(folder)
        inputs = processor([Image.open(path).convert("RGB") for path in pictures], return_tensors="pt")
    found = model(**inputs, output_hidden_states=True)
    value = found.hidden_states[-2] if output == "hidden_states" else found[output]
    if not arguments:
        value = torch.nn.functional.normalize(value, dim=-1)
    return {("text" if is_text else "image") + ("_tokens" if arguments else "_embeddings"): value}


def roughen(model):
    """So that no bias is 0, and captions of one kind do not have one embedding."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.1 * torch.randn_like(buffer)
            if name.endswith("running_var"):
                buffer *= torch.rand_like(buffer) + 0.5


def xlm_roberta_config(name, **_):
    """What the hub has under xlm-roberta-base and -large."""
    import transformers

    sizes = LARGE if name.endswith("large") else BASE
    return transformers.XLMRobertaConfig(vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **sizes)


def make_open_clip(name, folder, pictures):
    import open_clip
    from open_clip.tokenizer import _clean_canonicalize, _clean_whitespace

    open_clip.hf_model.AutoConfig.from_pretrained = xlm_roberta_config
    config = open_clip.get_model_config(name)
    model = open_clip.create_model(name, pretrained=None, load_weights=False, pretrained_hf=False).eval()
    roughen(model)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    tags = open_clip.list_pretrained_tags_by_model(name)
    pretrained = open_clip.get_pretrained_cfg(name, tags[0]) if tags else {}
    keys = ("mean", "std", "interpolation", "resize_mode")
    preprocess = {key: pretrained[key] for key in keys if key in pretrained}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=config["vision_cfg"]["image_size"], **preprocess), is_train=False
    )
    context = config["text_cfg"].get("context_length", 77)
    if "SigLIP" in name:
        plain = siglip_tokenizer(folder, 2 if "SigLIP2" in name or "gopt" in name else 1)
        encode = lambda text: plain(_clean_canonicalize(text), context)
        if "SigLIP2" not in name:  # sentencepiece alone, without what SiglipTokenizer does before it
            import sentencepiece

            pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
            encode = lambda text: (pieces.encode(_clean_canonicalize(text))[: context - 1] + [1] * context)[:context]
    elif name.startswith("xlm"):
        import transformers

        shutil.copy(TOKENIZERS / "xlm_roberta/sentencepiece.bpe.model", folder)
        xlm = transformers.XLMRobertaTokenizer.from_pretrained(folder)
        encode = lambda text: xlm(_clean_whitespace(text), max_length=context, padding="max_length", truncation=True)["input_ids"]
    else:
        shutil.copy(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", folder)
        tokenizer = open_clip.SimpleTokenizer(context_length=context)
        encode = lambda text: tokenizer([text])[0].tolist()
    images = torch.stack([transform(Image.open(path)) for path in pictures])
    tokens = torch.tensor([encode(caption) for caption in CAPTIONS])
    return model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)


def check(name, options):
    """Whether tandem gives the same embeddings."""
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, torch.no_grad():
        folder, inputs = Path(temporary) / "checkpoint", Path(temporary) / "pictures"
        folder.mkdir()
        inputs.mkdir()
        torch.manual_seed(options.seed)
        random.seed(options.seed)
        pictures = draw_pictures(inputs, options.items)
        if name in TOWERS:
            expected = make_tower(name, folder, pictures)
        else:
            make = make_transformers if name in TRANSFORMERS else make_open_clip
            expected = dict(zip(("image_embeddings", "text_embeddings"), make(name, folder, pictures)))
        captions, out = Path(temporary) / "captions.txt", Path(temporary) / "out.safetensors"
        captions.write_text("".join(caption + "\n" for caption in CAPTIONS), encoding="utf-8")
        print(f"{name}:", flush=True)
        command = [options.program, "embed", "--weights", folder, "--out", out]
        if any(key.startswith("image") for key in expected):
            command += ["--images", inputs, "--orientation", "stored"]
        if any(key.startswith("text") for key in expected):
            command += ["--texts", captions]
        command += TOWERS[name][2] if name in TOWERS else []
        if subprocess.run(command).returncode != 0:
            return False
        bar = 2e-5 if any(part in name for part in LARGER) else 1e-5
        agrees = True
        with safe_open(out, "pt") as found:
            for key, value in expected.items():
                # Tokens are as large as the model makes them: of what they are, the bar's share.
                scale = max(1.0, value.abs().max().item()) if key.endswith("_tokens") else 1.0
                difference = (found.get_tensor(key) - value).abs().max().item() / scale
                within = difference <= bar  # not for NaN
                print(f"  {key:18} max |difference| {difference:.2e} (bar {bar:.0e}){'' if within else '  FAILED'}", flush=True)
                agrees = agrees and within
        return agrees


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", nargs="+", metavar="NAME", help="of --list, at its real size")
    parser.add_argument("--list", action="store_true", help="the names")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and pictures (default 0)")
    parser.add_argument("--items", type=int, default=4, metavar="N", help="pictures (default 4)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for the checkpoints (default: the system's temporary one)")
    parser.add_argument("--program", type=Path, default=ROOT / "build/user/examples/tandem/tandem")
    options = parser.parse_args()
    names = [*TRANSFORMERS, *OPEN_CLIP, *TOWERS]
    if options.list or not options.full:
        print("\n".join(names))
        return 0
    unknown = set(options.full) - set(names)
    if unknown or options.items < 1:
        parser.error(f"--full: unknown {', '.join(sorted(unknown))}; see --list" if unknown else "--items: expected 1 or more")
    failed = [name for name in options.full if not check(name, options)]
    print(f"{len(options.full) - len(failed)} of {len(options.full)} families agree" + "".join(f"\n  not {name}" for name in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
