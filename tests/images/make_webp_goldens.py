"""Writes tests/images/fixtures/webp: WebP pictures, and pictures of all formats that EXIF data turn.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/images/make_webp_goldens.py

pixels.txt       file orientation background width height hash   what Pillow makes of the file: "stored" as it is, "exif" after
                 ImageOps.exif_transpose; "none" is convert("RGB"), else pasted on a colour
turned_*.jpg.png a JPEG after exif_transpose, as an RGB PNG (compared with a tolerance, hence not a hash)

Hashes are 64-bit FNV-1a of the RGB bytes.
"""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from make_image_goldens import chunk, fnv
from PIL import Image, ImageOps

OUT = Path(__file__).parent / "fixtures/webp"
ORIENTATION = 0x0112


def picture(numbers, width, height, channels=3):
    """Soft patches, so that every side and corner differs."""
    small = np.array([[[numbers.randrange(256) for _ in range(channels)] for _ in range(5)] for _ in range(4)], np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def exif(orientation, big_endian=False):
    data = Image.Exif()
    data[0x010F] = "a maker"  # an entry before it
    data[ORIENTATION] = orientation
    data.endian = ">" if big_endian else "<"
    return data.tobytes()


def save(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def to_rgb(image, background):
    if background == "none":
        return image.convert("RGB")
    colour = tuple(bytes.fromhex(background))
    below = Image.new("RGB", image.size, colour)
    rgba = image.convert("RGBA")
    below.paste(rgba, mask=rgba.getchannel("A"))
    return below


def main():
    numbers = random.Random(16)
    OUT.mkdir(parents=True, exist_ok=True)
    opaque, clear = picture(numbers, 37, 26), picture(numbers, 23, 31, 4)
    frames = [picture(numbers, 20, 14, 4) for _ in range(3)]
    files = {
        "lossy.webp": save(opaque, "WEBP", quality=80),
        "lossless.webp": save(opaque, "WEBP", lossless=True),
        "alpha_lossy.webp": save(clear, "WEBP", quality=70),
        "alpha_lossless.webp": save(clear, "WEBP", lossless=True, exact=True),
        "opaque_alpha.webp": save(opaque.convert("RGBA"), "WEBP", lossless=True),
        "one_pixel.webp": save(picture(numbers, 1, 1), "WEBP", lossless=True),
        "animated.webp": save(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=50),
        "animated_opaque.webp": save(frames[0].convert("RGB"), "WEBP", save_all=True, lossless=True, duration=50,
                                     append_images=[frame.convert("RGB") for frame in frames[1:]]),
    }  # fmt: skip
    for orientation in range(0, 10):  # of which 0 and 9 are none
        big = orientation % 2 == 1
        files[f"turned_{orientation}.png"] = save(opaque, "PNG", exif=exif(orientation, big))
        files[f"turned_{orientation}.webp"] = save(clear, "WEBP", lossless=True, exif=exif(orientation, big))
        if orientation in (3, 6, 8):
            files[f"turned_{orientation}.jpg"] = save(opaque, "JPEG", quality=95, subsampling=0, exif=exif(orientation, big))
    grey16 = np.arange(12 * 9, dtype=">u2").reshape(9, 12) * 601
    header = struct.pack(">IIBBBBB", 12, 9, 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in grey16)
    files["turned_grey16.png"] = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"eXIf", exif(7)[6:]) +
                                  chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip
    with open(OUT / "pixels.txt", "w") as table:
        for name, data in files.items():
            (OUT / name).write_bytes(data)
            image = Image.open(io.BytesIO(data))
            turned = ImageOps.exif_transpose(image)
            if name.endswith(".jpg"):
                turned.convert("RGB").save(OUT / f"{name}.png", optimize=True)
                continue
            if name == "turned_grey16.png":  # (Pillow's RGB of it is clamped; the shape is what counts)
                continue
            for orientation, found in (("stored", image), ("exif", turned)):
                for background in ("none", "ffffff", "10c040"):
                    rgb = to_rgb(found, background)
                    print(name, orientation, background, *rgb.size, fnv(rgb), file=table)


if __name__ == "__main__":
    main()
