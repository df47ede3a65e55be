"""A training step of open_clip's CLIP on PyTorch, float32: the peer of train_step.cpp.

    train_step_peer.py clipart|vit_b_32 THREADS STEPS     prints the seconds of each step
"""

import sys
import time

import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

MODELS = {
    "clipart": (128, dict(image_size=64, patch_size=8, width=192, layers=6, head_width=64),
                dict(context_length=32, vocab_size=4096, width=192, heads=3, layers=4), 256),
    "vit_b_32": (512, dict(image_size=224, patch_size=32, width=768, layers=12, head_width=64),
                 dict(context_length=77, vocab_size=49408, width=512, heads=8, layers=12), 32),
}


def main() -> None:
    name, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    embedding, vision, text, batch = MODELS[name]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = CLIP(embedding, CLIPVisionCfg(**vision), CLIPTextCfg(**text))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    loss = ClipLoss()
    images = torch.randn(batch, 3, vision["image_size"], vision["image_size"])
    tokens = torch.randint(1, text["vocab_size"] - 1, (batch, text["context_length"]))
    tokens[:, -1] = text["vocab_size"] - 1
    for _ in range(steps):
        begin = time.perf_counter()
        optimizer.zero_grad()
        features = model(images, tokens)
        loss(*features[:3]).backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        print(time.perf_counter() - begin)


if __name__ == "__main__":
    main()
