"""Writes tests/images/fixtures/image: small PNG and JPEG files, and what Pillow makes of them.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/images/make_image_goldens.py [--out DIR]

pixels.txt     file background width height hash   the file decoded: "none" is convert("RGB"), else pasted on a colour
resize.txt     file filter width height x0 y0 x1 y1 hash hash_across_first
resize_torchvision.txt  file filter width height hash
transform.txt  name file height width hash         torchvision's geometry, rewritten below on top of Pillow
stored.txt     name file height width fill hash    open_clip's transforms of pictures that are not RGB; of floats
*.jpg.png      the JPEG decoded, as an RGB PNG     (compared with a tolerance, hence not a hash)
*.f32          normalised planes, little-endian floats

Hashes are 64-bit FNV-1a, of the RGB bytes if nothing else is said.
"""

import argparse
import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transform import image_transform
from PIL import Image, features
from torchvision.transforms import InterpolationMode, functional
from torchvision.transforms.v2.functional import resize

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def fnv(image):
    """Of anything that has tobytes()."""
    value = 0xCBF29CE484222325
    for byte in image.tobytes():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed_rows(samples, depth):
    """Samples [height][width][channels] as PNG rows, each behind filter byte 0."""
    rows = b""
    for row in samples:
        flat = row.reshape(-1)
        if depth == 16:
            data = flat.astype(">u2").tobytes()
        elif depth == 8:
            data = flat.astype(np.uint8).tobytes()
        else:
            bits = "".join(format(int(v), f"0{depth}b") for v in flat)
            bits += "0" * (-len(bits) % 8)
            data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        rows += b"\0" + data
    return rows


def encode_png(samples, depth, colour_type, interlaced=False, palette=None, transparency=None, parts=1, excess=b""):
    """A PNG writer for the colour types that Pillow does not write."""
    height, width, _ = samples.shape
    if interlaced:
        passes = [samples[y0::dy, x0::dx] for x0, y0, dx, dy in ADAM7]
        rows = b"".join(packed_rows(p, depth) for p in passes if p.size)
    else:
        rows = packed_rows(samples, depth)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    if palette is not None:
        out += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if transparency is not None:
        out += chunk(b"tRNS", transparency)
    out += chunk(b"tEXt", b"Comment\0a text chunk before the data")
    data = zlib.compress(rows + excess, 9)
    step = -(-len(data) // parts)
    for i in range(0, len(data), step):
        out += chunk(b"IDAT", data[i : i + step])
    return out + chunk(b"IEND", b"")


def with_end(png, end):
    """A PNG of one IDAT whose last four bytes, zlib's checksum, become a chunk of their own: `end` where that is given."""
    at = png.index(b"IDAT")
    data = png[at + 4 : at + 4 + int.from_bytes(png[at - 4 : at])]
    last = data[-4:] if end is None else end
    return png[: at - 4] + chunk(b"IDAT", data[:-4]) + (chunk(b"IDAT", last) if last else b"") + chunk(b"IEND", b"")


def png_cases(numbers):
    """(name, bytes) of every colour type and depth, plain, interlaced and with transparency."""
    width, height = 21, 13
    for interlaced in (False, True):
        tail = "_interlaced" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            top = 2**depth
            grey = numbers.integers(0, top, (height, width, 1))
            yield f"grey{depth}{tail}", encode_png(grey, depth, 0, interlaced)
            key = struct.pack(">H", int(grey[3, 4, 0]))
            yield f"grey{depth}_trns{tail}", encode_png(grey, depth, 0, interlaced, transparency=key)
            if depth <= 8:
                used = min(top, 200)
                palette = numbers.integers(0, 256, (used, 3))
                index = numbers.integers(0, used, (height, width, 1))
                yield f"palette{depth}{tail}", encode_png(index, depth, 3, interlaced, palette)
                alphas = numbers.integers(0, 256, used // 2 + 1).astype(np.uint8).tobytes()
                yield f"palette{depth}_trns{tail}", encode_png(index, depth, 3, interlaced, palette, alphas)
        for depth in (8, 16):
            top = 2**depth
            rgb = numbers.integers(0, top, (height, width, 3))
            yield f"rgb{depth}{tail}", encode_png(rgb, depth, 2, interlaced)
            key = struct.pack(">HHH", *(int(v) for v in rgb[5, 6]))
            yield f"rgb{depth}_trns{tail}", encode_png(rgb, depth, 2, interlaced, transparency=key)
            pair = numbers.integers(0, top, (height, width, 2))
            yield f"greyalpha{depth}{tail}", encode_png(pair, depth, 4, interlaced)
            rgba = numbers.integers(0, top, (height, width, 4))
            yield f"rgba{depth}{tail}", encode_png(rgba, depth, 6, interlaced)
    for side in (1, 2, 3, 5):
        rgb = numbers.integers(0, 256, (side, side, 3))
        yield f"rgb8_{side}_interlaced", encode_png(rgb, 8, 2, True)
    index = numbers.integers(0, 16, (height, width, 1))
    yield "palette_short", encode_png(index, 4, 3, palette=numbers.integers(0, 256, (5, 3)))
    rgb = numbers.integers(0, 256, (height, width, 3))
    yield "rgb8_many_idat", encode_png(rgb, 8, 2, parts=50)
    yield "rgb8_end_apart", with_end(encode_png(rgb, 8, 2), None)
    yield "rgb8_wrong_end", with_end(encode_png(rgb, 8, 2), b"abcd")
    yield "rgb8_no_end", with_end(encode_png(rgb, 8, 2), b"")
    yield "grey8_excess", encode_png(numbers.integers(0, 256, (height, width, 1)), 8, 0, excess=bytes(70))


def to_rgb(data, background):
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I;16"):
        # Pillow would clamp at 255; the high byte is what it makes of 16-bit RGB.
        wide = np.asarray(image).astype(np.uint16)
        rgb = Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
        key = image.info.get("transparency")
        if background is not None and key is not None:
            mask = np.where(wide == key, 0, 255).astype(np.uint8)
            canvas = Image.new("RGB", image.size, background)
            canvas.paste(rgb, mask=Image.fromarray(mask))
            return canvas
        return rgb
    if background is None:
        return image.convert("RGB")
    if image.mode == "1":
        # (Pillow cannot key 1-bit images; go by way of 8 bits.)
        key = image.info.pop("transparency", None)
        image = image.convert("L")
        if key is not None:
            image.info["transparency"] = 255 * min(int(key), 1)
    elif image.mode == "L" and "transparency" in image.info and data[24] < 8:
        # Pillow compares 2- and 4-bit keys with pixels that it has scaled to 8 bits.
        image.info["transparency"] *= 255 // (2 ** data[24] - 1)
    if image.mode == "RGB" and "transparency" in image.info and data[24] == 16:
        # Pillow compares 16-bit keys with 8-bit pixels; the file's own samples decide here.
        return None
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def write_pngs(out, numbers):
    lines = []
    for name, data in png_cases(numbers):
        (out / f"{name}.png").write_bytes(data)
        for background in (None, "#ffffff", "#14c85a"):
            rgb = to_rgb(data, background)
            if rgb is not None:
                lines.append(f"{name}.png {(background or 'none').lstrip('#')} {rgb.width} {rgb.height} {fnv(rgb)}")
    (out / "pixels.txt").write_text("\n".join(lines) + "\n")


def picture(width, height, numbers):
    """Smooth shades, hard edges and a little noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 127 + 120 * np.sin(x / 9) * np.cos(y / 7)
    green = 255 * ((x // 11 + y // 8) % 2)
    blue = 255 * x / max(width - 1, 1)
    rgb = np.stack([red, green, blue], -1) + numbers.normal(0, 6, (height, width, 3))
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))


def write_jpegs(out, numbers):
    small, wide = picture(35, 26, numbers), picture(83, 61, numbers)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotated by 90 degrees, to be ignored
    cases = {
        "baseline420": (wide, dict(quality=85, subsampling="4:2:0")),
        "baseline422": (wide, dict(quality=75, subsampling="4:2:2")),
        "baseline444": (wide, dict(quality=95, subsampling="4:4:4")),
        "progressive": (wide, dict(quality=80, progressive=True)),
        "restarts": (wide, dict(quality=80, restart_marker_blocks=3)),
        "keep_rgb": (wide, dict(quality=80, keep_rgb=True)),
        "oriented": (small, dict(quality=80, exif=exif)),
        "small": (small, dict(quality=60)),
        "small_progressive": (small, dict(quality=60, progressive=True)),
        "grey": (small.convert("L"), dict(quality=80)),
        "grey_progressive": (small.convert("L"), dict(quality=80, progressive=True)),
        "cmyk": (small.convert("CMYK"), dict(quality=80)),
    }
    files = {}
    for name, (image, options) in cases.items():
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        files[name] = buffer.getvalue()
    # The same inks declared to be YCCK: other colours, and the other conversion.
    at = files["cmyk"].index(b"Adobe")
    files["ycck"] = files["cmyk"][: at + 11] + b"\x02" + files["cmyk"][at + 12 :]
    for name, data in files.items():
        (out / f"{name}.jpg").write_bytes(data)
        Image.open(io.BytesIO(data)).convert("RGB").save(out / f"{name}.jpg.png", optimize=True)


def write_resizes(out, numbers, chance):
    sources = {
        "photo.png": picture(97, 61, numbers),
        "noise.png": Image.fromarray((numbers.integers(0, 2, (110, 150, 3)) * 255).astype(np.uint8)),
        "pixel.png": Image.fromarray(numbers.integers(0, 256, (1, 1, 3)).astype(np.uint8)),
        "row.png": Image.fromarray(numbers.integers(0, 256, (1, 50, 3)).astype(np.uint8)),
        "column.png": Image.fromarray(numbers.integers(0, 256, (37, 2, 3)).astype(np.uint8)),
    }
    lines = []

    def add(file, image, kind, width, height, box):
        result = image.resize((width, height), FILTERS[kind], box)
        # Pillow up to 12 always resized across first; two calls of one pass each do so in any version.
        x0, y0, x1, y1 = box
        wide = image.resize((width, image.height), FILTERS[kind], (x0, 0, x1, image.height))
        across_first = wide.resize((width, height), FILTERS[kind], (0, y0, width, y1))
        numbers_text = " ".join(repr(float(np.float32(v))) for v in box)
        lines.append(f"{file} {kind} {width} {height} {numbers_text} {fnv(result)} {fnv(across_first)}")

    for file, image in sources.items():
        image.save(out / file, optimize=True)
        whole = (0, 0, *image.size)
        sizes = [(1, 1), (2, 3), (16, 16), (17, 5), (33, 47), (64, 64), (97, 61), (61, 97), (97, 7), (5, 61), (224, 1)]
        sizes += [(87, 41), (88, 41)]  # of photo.png: on either side of where Pillow changes the order of its passes
        for kind in FILTERS:
            for width, height in sizes + [(image.width, 19), (23, image.height), image.size, (300, 190)]:
                add(file, image, kind, width, height, whole)
    for _ in range(120):
        file = chance.choice(["photo.png", "noise.png"])
        image = sources[file]
        x0, x1 = sorted(np.float32(chance.uniform(0, image.width)) for _ in range(2))
        y0, y1 = sorted(np.float32(chance.uniform(0, image.height)) for _ in range(2))
        if chance.random() < 0.3:
            x0, y0, x1, y1 = int(x0), int(y0), int(x1) + 1, int(y1) + 1
        kind = chance.choice(list(FILTERS))
        add(file, image, kind, chance.randint(1, 90), chance.randint(1, 90), tuple(float(v) for v in (x0, y0, x1, y1)))
    (out / "resize.txt").write_text("\n".join(lines) + "\n")

    lines = []
    modes = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
    for file, image in sources.items():
        planes = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        for kind, mode in modes.items():
            for width, height in sizes + [(image.width, 19), (23, image.height), (300, 190)]:
                if 1 in (width, height, *image.size):
                    continue  # an assertion of PyTorch 2.14's own fails
                result = resize(planes, [height, width], interpolation=mode, antialias=True).permute(1, 2, 0).contiguous()
                lines.append(f"{file} {kind} {width} {height} {fnv(Image.fromarray(result.numpy()))}")
    (out / "resize_torchvision.txt").write_text("\n".join(lines) + "\n")


def resize_shortest(image, size, kind):
    """torchvision 0.20, functional.py, _compute_resized_output_size."""
    width, height = image.size
    longer = int(size * max(width, height) / min(width, height))
    return image.resize((size, longer) if width <= height else (longer, size), FILTERS[kind])


def pad(image, width, height, left, top, colour):
    canvas = Image.new("RGB", (width, height), colour)
    canvas.paste(image, (left, top))
    return canvas


def center_crop(image, rows, columns):
    """torchvision 0.20, functional.py, center_crop."""
    width, height = image.size
    if columns > width or rows > height:
        left, top = max(0, (columns - width) // 2), max(0, (rows - height) // 2)
        image = pad(image, max(width, columns), max(height, rows), left, top, (0, 0, 0))
        width, height = image.size
        if (width, height) == (columns, rows):
            return image
    top, left = int(round((height - rows) / 2.0)), int(round((width - columns) / 2.0))
    return image.crop((left, top, left + columns, top + rows))


def pad_to_square(image, colour):
    side = max(image.size)
    return pad(image, side, side, (side - image.width) // 2, (side - image.height) // 2, colour)


def resize_keep_ratio(image, rows, columns, kind, choose):
    """open_clip, transform.py, ResizeKeepRatio: `choose` is max for longest=1, and min."""
    ratio = choose(image.height / rows, image.width / columns)
    return image.resize(tuple(max(1, round(side / ratio)) for side in image.size), FILTERS[kind])


def fit_longest(image, rows, columns, kind, colour):
    """open_clip, transform.py, ResizeKeepRatio(longest=1) and CenterCropOrPad."""
    inner = resize_keep_ratio(image, rows, columns, kind, max)
    return pad(inner, columns, rows, (columns - inner.width) // 2, (rows - inner.height) // 2, colour)


def crop_of_strip(image, size, kind):
    """torchvision 0.20, transforms.py, RandomResizedCrop.get_params: what remains when ten tries fail."""
    width, height = image.size
    part_width, part_height = width, height
    if width / height < 3 / 4:
        part_height = int(round(width / (3 / 4)))
    elif width / height > 4 / 3:
        part_width = int(round(height * (4 / 3)))
    left, top = (width - part_width) // 2, (height - part_height) // 2
    return image.crop((left, top, left + part_width, top + part_height)).resize((size, size), FILTERS[kind])


def write_transforms(out, numbers):
    lines = []
    files = {"photo.png": Image.open(out / "photo.png"), "row.png": Image.open(out / "row.png")}
    tall = picture(45, 80, numbers)
    tall.save(out / "tall.png", optimize=True)
    files["tall.png"] = tall
    for file, image in files.items():
        squares = [(side, side) for side in (7, 10, 32, 45, 61, 64, 96, 97, 98, 101)]
        for rows, columns in [*squares, (32, 45), (45, 32), (7, 64), (101, 10), (64, 97)]:
            size = f"{file} {rows} {columns}"
            lines.append(f"center_crop {size} {fnv(center_crop(image, rows, columns))}")
            for kind in FILTERS:
                # open_clip, transform.py, image_transform.
                if rows == columns:
                    resized = resize_shortest(image, rows, kind)
                    lines.append(f"shortest_{kind} {size} {fnv(resized)}")
                else:
                    resized = resize_keep_ratio(image, rows, columns, kind, min)
                lines.append(f"shortest_crop_{kind} {size} {fnv(center_crop(resized, rows, columns))}")
                lines.append(f"squash_{kind} {size} {fnv(image.resize((columns, rows), FILTERS[kind]))}")
                lines.append(f"longest_{kind} {size} {fnv(fit_longest(image, rows, columns, kind, (9, 99, 199)))}")
        lines.append(f"pad_to_square {file} 0 0 {fnv(pad_to_square(image, (9, 99, 199)))}")
        lines.append(f"flip {file} 0 0 {fnv(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))}")
    picture(90, 6, numbers).save(out / "strip.png", optimize=True)
    for file in ("row.png", "column.png", "strip.png"):
        strip = Image.open(out / file)
        lines.append(f"strip_crop {file} 8 8 {fnv(crop_of_strip(strip, 8, 'bicubic'))}")
    (out / "transform.txt").write_text("\n".join(lines) + "\n")

    def normalised(image, mean, deviation):
        # torchvision: ToTensor divides by 255, Normalize subtracts, then divides, all in float32.
        planes = np.asarray(image).astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        mean, deviation = (np.array(v, np.float32).reshape(3, 1, 1) for v in (mean, deviation))
        return (planes - mean) / deviation

    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    photo = files["photo.png"]
    crop = center_crop(resize_shortest(photo, 32, "bicubic"), 32, 32)
    (out / "openai_32.f32").write_bytes(normalised(crop, mean, deviation).astype("<f4").tobytes())
    squashed = photo.resize((32, 32), FILTERS["bicubic"])
    (out / "siglip_32.f32").write_bytes(normalised(squashed, [0.5] * 3, [0.5] * 3).astype("<f4").tobytes())


def stored_cases(numbers):
    """(name, bytes) of pictures that Pillow does not open as RGB or L: smooth, with hard edges, larger than one target."""
    width, height = 50, 37
    colours = np.asarray(picture(width, height, numbers))
    y, x = np.mgrid[0:height, 0:width]
    alphas = np.clip(255 * np.sin(x / 6) * np.cos(y / 5) + 128, 0, 255).astype(np.uint8)[..., None]
    areas = np.where((x // 9 + y // 7) % 3 == 0, 0, 255).astype(np.uint8)[..., None]
    hidden = np.where(areas == 0, 255, colours)  # white under what is transparent
    yield "transparent", encode_png(np.concatenate([colours, alphas], -1), 8, 6)
    yield "transparent_white", encode_png(np.concatenate([hidden, areas], -1), 8, 6)
    yield "transparent_grey", encode_png(np.concatenate([hidden[..., :1], alphas], -1), 8, 4)
    yield "opaque", encode_png(np.concatenate([colours, np.full_like(alphas, 255)], -1), 8, 6)
    yield "bits", encode_png((x // 3 + y // 4)[..., None] % 2, 1, 0)
    index = ((x // 4) * (y // 3) % 30)[..., None]
    yield "indexed", encode_png(index, 8, 3, palette=numbers.integers(0, 256, (30, 3)))
    yield "dark16", encode_png((colours[..., :1].astype(int) * 2 - 60).clip(0), 16, 0)


def write_stored(out, numbers):
    files = []
    for name, data in stored_cases(numbers):
        (out / f"{name}.png").write_bytes(data)
        files.append(f"{name}.png")
    # Of what write_pngs has written, 21 by 13.
    files += [f"{name}.png" for name in ("grey1_trns", "grey2_trns", "grey8", "grey16_trns", "palette1", "palette4_trns")]
    files += [f"{name}.png" for name in ("palette_short", "rgb8_trns", "rgb16", "greyalpha16", "rgba8", "rgba16_interlaced")]
    lines = []
    for file in [*files, "rgba8.png as inks"]:
        image = Image.open(out / file.split()[0])
        if file.endswith("inks"):
            image = Image.frombytes("CMYK", image.size, image.tobytes())
        width, height = image.size
        # Also where nothing is resized, only one side, and only half.
        for rows, columns in ((16, 16), (7, 7), (height, width), (height, 9), (height, height), (30, 60)):
            size = f"{file.replace(' as ', ':')} {rows} {columns}"
            target = rows if rows == columns else (rows, columns)

            def add(name, fill):
                options = dict(resize_mode=name.split("_")[0], interpolation=name.split("_")[1], fill_color=fill)
                lines.append(f"{name} {size} {fill} {fnv(image_transform(target, False, **options)(image).numpy())}")

            for kind in FILTERS:
                add(f"squash_{kind}", 0)
                add(f"longest_{kind}", 0 if kind == "bicubic" else 9)
            # open_clip gives a target that is not square no interpolation but bicubic.
            for kind in FILTERS if rows == columns else ["bicubic"]:
                add(f"shortest_{kind}", 0)
            # torchvision, transforms.py, RandomResizedCrop of a whole area and ratio 1: what remains when ten tries fail.
            part = functional.resized_crop(
                image, 0, (width - height) // 2, height, height, [rows, columns], InterpolationMode.BICUBIC, antialias=True
            )
            planes = functional.to_tensor(part.convert("RGB"))
            planes = functional.normalize(planes, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
            lines.append(f"crop_bicubic {size} 0 {fnv(planes.numpy())}")
    (out / "stored.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "fixtures" / "image")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    numbers = np.random.default_rng(7)
    write_pngs(out, numbers)
    write_jpegs(out, numbers)
    write_resizes(out, numbers, random.Random(7))
    write_transforms(out, numbers)
    write_stored(out, np.random.default_rng(8))
    versions = f"Pillow {Image.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, numpy {np.__version__}"
    (out / "versions.txt").write_text(versions + "\n")


if __name__ == "__main__":
    main()
