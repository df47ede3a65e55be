"""OpenAI CLIP's preprocessing by Pillow and torchvision on one thread: the peer of preprocess.cpp.

    preprocess_peer.py PICTURE.jpg ROUNDS [TENSOR.f32]    prints the CPU microseconds of a picture in each round, and
                                                          on stderr how far TENSOR.f32 is from what Pillow makes
"""

import io
import pathlib
import sys
import time

import numpy
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def main() -> None:
    data, rounds = pathlib.Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
    torch.set_num_threads(1)
    transform = Compose([Resize(224, interpolation=InterpolationMode.BICUBIC), CenterCrop(224),
                         lambda image: image.convert("RGB"), ToTensor(), Normalize(MEAN, DEVIATION)])
    images = 100
    for _ in range(rounds):
        begin = time.process_time()
        for _ in range(images):
            tensor = transform(Image.open(io.BytesIO(data)))
        print((time.process_time() - begin) / images * 1e6)
    if len(sys.argv) > 3:
        ours = numpy.fromfile(sys.argv[3], numpy.float32).reshape(tensor.shape)
        difference = abs(ours - tensor.numpy()).max() * min(DEVIATION) * 255
        print(f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}: "
              f"tensors differ by at most {difference:.2f} of 255 levels", file=sys.stderr)


if __name__ == "__main__":
    main()
