#!/usr/bin/env python3
"""The peer of `tandem embed`: open_clip, a DataLoader that decodes and preprocesses, batches of 64.

usage: embed_peer.py --model NAME --weights FOLDER --images FOLDER --out FILE.npy --threads N --workers N
"""

import argparse
from pathlib import Path

import numpy
import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file


class Pictures(torch.utils.data.Dataset):
    def __init__(self, folder, transform):
        self.paths, self.transform = sorted(Path(folder).iterdir()), transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--weights", "--images", "--out"):
        parser.add_argument(name, required=True)
    for name in ("--threads", "--workers"):
        parser.add_argument(name, required=True, type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, _, transform = open_clip.create_model_and_transforms(options.model, load_weights=False)
    model.load_state_dict(load_file(Path(options.weights) / "open_clip_model.safetensors"))
    model.eval()
    loader = torch.utils.data.DataLoader(Pictures(options.images, transform), batch_size=64, num_workers=options.workers)
    with torch.inference_mode():
        rows = [model.encode_image(batch, normalize=True) for batch in loader]
    numpy.save(options.out, torch.cat(rows).numpy())


if __name__ == "__main__":
    main()
