"""open_clip's side of shards.sh: its own loader of webdataset shards (open_clip_train/data.py), one epoch.

shards_peer.py make FOLDER SHARDS PER_SHARD      writes JPEG shards of 500 x 375 pixels
shards_peer.py read PATTERN PAIRS BATCH WORKERS  prints samples a second
"""

import argparse
import io
import random
import sys
import tarfile
import time
import types
from pathlib import Path

import numpy
from PIL import Image, ImageFilter


def make(folder, shards, per_shard):
    draw, words = numpy.random.default_rng(0), "a photo of the small red large dog cat tree house by on sea old street with two people".split()
    texts = random.Random(0)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:06}.tar", "w") as archive:
            for i in range(per_shard):
                # Smooth areas with edges and some noise, as photographs have them.
                low = Image.fromarray(draw.integers(0, 256, (9, 12, 3), dtype=numpy.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
                fine = Image.fromarray(draw.integers(0, 256, (375, 500, 3), dtype=numpy.uint8)).filter(ImageFilter.GaussianBlur(1.5))
                picture = io.BytesIO()
                Image.blend(low, fine, 0.35).save(picture, "JPEG", quality=90)
                for ending, content in (("jpg", picture.getvalue()), ("txt", " ".join(texts.choices(words, k=12)).encode())):
                    entry = tarfile.TarInfo(f"{shard:04}{i:05}.{ending}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))


def read(pattern, pairs, batch, workers):
    import open_clip

    # It imports pandas for tables alone.
    sys.modules.setdefault("pandas", types.ModuleType("pandas"))
    from open_clip_train.data import get_wds_dataset

    preprocess = open_clip.image_transform(224, is_train=True, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
    args = argparse.Namespace(train_data=pattern, train_num_samples=pairs, train_data_upsampling_factors=None, dataset_resampled=False, seed=0, batch_size=batch,
                              workers=workers, world_size=1)  # fmt: skip
    info = get_wds_dataset(args, preprocess, is_train=True, floor=True, tokenizer=open_clip.get_tokenizer("ViT-B-32"))
    info.set_epoch(0)
    loader, seen, began = iter(info.dataloader), 0, None
    for images, texts in loader:
        # The first batch waits for the workers to start.
        if began is None:
            began = time.perf_counter()
        else:
            seen += len(images)
    print(f"{seen / (time.perf_counter() - began):.1f}")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        read(sys.argv[2], *map(int, sys.argv[3:6]))
