#!/usr/bin/env python3
"""`tandem condition` beside diffusers' own pipelines and transformers, on encoders of real sizes with random weights.

    tests/parity/venv.sh
    cmake --preset user && cmake --build --preset user
    .venv-parity/bin/python tests/parity/conditioning.py [KIND ...]      default: sd1 sd2 sdxl unclip llava

Needs twice the encoders' size in memory and once on disk: 7 GB for sdxl.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from families import CLIP_TEXT_L, CLIP_VISION_L, ROOT, TEXT_H, VISION_H, draw_pictures, roughen, write_clip_vocabulary
from PIL import Image
from safetensors.torch import load_file, save_file

PROMPTS = ("a photograph of an astronaut riding a horse", "blurry, low quality " + "ugly " * 90)
TEXT_BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280}


def text_encoder(kind, sizes):
    import transformers

    model = getattr(transformers, kind)(transformers.CLIPTextConfig(**sizes, bos_token_id=49406, eos_token_id=49407)).eval()
    roughen(model)
    return model


def tokenizer(folder, **padding):
    import transformers

    vocabulary = folder / "vocabulary"
    vocabulary.mkdir(exist_ok=True)
    write_clip_vocabulary(vocabulary)
    return transformers.CLIPTokenizer(str(vocabulary / "vocab.json"), str(vocabulary / "merges.txt"), model_max_length=77, **padding)


def run(options, *arguments):
    out = options.scratch / "out.safetensors"
    subprocess.run([options.program, "condition", *map(str, arguments), "--out", out], check=True, stdout=subprocess.DEVNULL)
    return load_file(out)


def agree(what, found, expected):
    """Hidden states are of any size: the largest difference beside the largest element."""
    worst = max((found[name] - value).abs().max().item() / max(value.abs().max().item(), 1e-6) for name, value in expected.items())
    shapes = found.keys() == expected.keys() and all(found[name].shape == value.shape for name, value in expected.items())
    good = shapes and worst <= 2e-5
    print(f"  {what}: {', '.join(sorted(expected))}: {worst:.1e}{'' if good else '  differs'}", flush=True)
    return good


def stable_diffusion(options, sizes, **padding):
    from diffusers import StableDiffusionPipeline

    encoder, words = text_encoder("CLIPTextModel", sizes), tokenizer(options.scratch, **padding)
    folder = options.scratch / "pipeline"
    encoder.save_pretrained(folder / "text_encoder")
    words.save_pretrained(folder / "tokenizer")
    object.__setattr__(encoder, "text_model", encoder)  # which diffusers 0.42 looks for, and transformers 5.23 no longer has
    pipeline = StableDiffusionPipeline(None, encoder, words, None, None, None, None, requires_safety_checker=False)
    good = True
    for what, negative, skip in (("plain", None, None), ("negative", PROMPTS[1], None), ("clip skip 2", PROMPTS[1], 2)):
        wanted, unwanted = pipeline.encode_prompt(PROMPTS[0], "cpu", 1, True, negative, clip_skip=skip)
        found = run(options, "sd", "--pipeline", folder, "--prompt", PROMPTS[0], *(["--negative", negative] if negative else []), *(["--clip-skip", skip] if skip else []))
        good &= agree(what, found, {"prompt_embeds": wanted, "negative_prompt_embeds": unwanted})
    return good


def sdxl(options):
    from diffusers import StableDiffusionXLPipeline

    encoders = text_encoder("CLIPTextModel", CLIP_TEXT_L | {"projection_dim": 768}), text_encoder("CLIPTextModelWithProjection", TEXT_BIG_G)
    words = tokenizer(options.scratch), tokenizer(options.scratch, pad_token="!")
    folder = options.scratch / "pipeline"
    for part, ending in zip((0, 1), ("", "_2")):
        encoders[part].save_pretrained(folder / f"text_encoder{ending}")
        words[part].save_pretrained(folder / f"tokenizer{ending}")
    good = True
    for zeros in (True, False):
        (folder / "model_index.json").write_text(json.dumps({"force_zeros_for_empty_prompt": zeros}))
        pipeline = StableDiffusionXLPipeline(None, *encoders, *words, None, None, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
        for what, negative, skip in (("plain", None, None), ("empty negative", "", None), ("negative", PROMPTS[1], None), ("clip skip 1", PROMPTS[1], 1)):
            values = pipeline.encode_prompt(PROMPTS[0], device="cpu", negative_prompt=negative, do_classifier_free_guidance=True, clip_skip=skip)
            names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
            found = run(options, "sdxl", "--pipeline", folder, "--prompt", PROMPTS[0], *([] if negative is None else ["--negative", negative or " "]), *(["--clip-skip", skip] if skip else []))
            good &= agree(f"{what}, {'zeros' if zeros else 'no zeros'}", found, dict(zip(names, values)))
    return good


def unclip(options):
    import transformers
    from diffusers import DDPMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    encoder = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION_H | {"projection_dim": 1024})).eval()
    roughen(encoder)
    features = transformers.CLIPImageProcessor()
    normalizer = StableUnCLIPImageNormalizer(embedding_dim=1024)
    with torch.no_grad():
        normalizer.mean += torch.randn_like(normalizer.mean)
        normalizer.std *= 0.5 + torch.rand_like(normalizer.std)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    folder = options.scratch / "pipeline"
    for part, name in ((encoder, "image_encoder"), (features, "feature_extractor"), (normalizer, "image_normalizer"), (scheduler, "image_noising_scheduler")):
        part.save_pretrained(folder / name)
    pipeline = StableUnCLIPImg2ImgPipeline(features, encoder, normalizer, scheduler, None, None, None, None, None)
    (options.scratch / "pictures").mkdir()
    path = draw_pictures(options.scratch / "pictures", 2)[1]
    embeds = encoder(**features(Image.open(path).convert("RGB"), return_tensors="pt")).image_embeds
    good = True
    for level in (0, 250, 999):
        noise = torch.randn(1, 1024)
        save_file({"noise": noise}, options.scratch / "noise.safetensors")
        expected = pipeline.noise_image_embeddings(embeds.clone(), level, noise)
        found = run(options, "unclip", "--pipeline", folder, "--image", path, "--noise-level", level, "--noise", options.scratch / "noise.safetensors", "--orientation", "stored")
        good &= agree(f"level {level}", found, {"image_embeds": expected})
    return good


def llava(options):
    import transformers

    tower = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**CLIP_VISION_L)).eval()
    roughen(tower)
    size = tower.config.image_size
    features = transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    tower.save_pretrained(options.scratch / "tower")
    features.save_pretrained(options.scratch / "tower")
    width = tower.config.hidden_size
    projector = torch.nn.Sequential(torch.nn.Linear(width, 512), torch.nn.GELU(), torch.nn.Linear(512, 384))
    named = {f"model.mm_projector.{name}": value.contiguous() for name, value in projector.state_dict().items()}
    torch.save(named, options.scratch / "mm_projector.bin")
    theirs = {"0": "linear_1", "2": "linear_2"}
    save_file({f"multi_modal_projector.{theirs[name[0]]}{name[1:]}": value.contiguous() for name, value in projector.state_dict().items()}, options.scratch / "model.safetensors")
    (options.scratch / "pictures").mkdir()
    path = draw_pictures(options.scratch / "pictures", 2)[0]
    picture = Image.open(path).convert("RGB")

    def padded():
        """LLaVA's expand2square (llava/mm_utils.py), in its own words."""
        side = max(picture.size)
        square = Image.new("RGB", (side, side), tuple(int(255 * value) for value in features.image_mean))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return square

    good = True
    for what, image, extra in (("plain", picture, []), ("padded", padded(), ["--pad"])):
        hidden = tower(**features(image, return_tensors="pt"), output_hidden_states=True).hidden_states[-2][:, 1:]
        common = ["llava", "--weights", options.scratch / "tower", "--image", path, "--orientation", "stored", *extra]
        good &= agree(f"{what}, patches", run(options, *common), {"image_features": hidden})
        for file in ("mm_projector.bin", "model.safetensors"):
            good &= agree(f"{what}, {file}", run(options, *common, "--projector", options.scratch / file), {"image_features": projector(hidden)})
    return good


KINDS = {
    "sd1": lambda options: stable_diffusion(options, CLIP_TEXT_L | {"projection_dim": 768}),
    "sd2": lambda options: stable_diffusion(options, TEXT_H | {"num_hidden_layers": 23}, pad_token="!"),
    "sdxl": sdxl,
    "unclip": unclip,
    "llava": llava,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--program", type=Path, default=ROOT / "build/user/examples/tandem/tandem")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}")
    failed = []
    for kind in options.kinds or KINDS:
        print(f"{kind}:", flush=True)
        torch.manual_seed(options.seed)
        random.seed(options.seed)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            options.scratch = Path(folder)
            if not KINDS[kind](options):
                failed.append(kind)
    print(f"{len(options.kinds or KINDS) - len(failed)} of {len(options.kinds or KINDS)} agree" + "".join(f"\n  not {kind}" for kind in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
