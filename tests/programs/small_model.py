"""A model of the quickstart's architecture with random weights and a tokenizer of bytes, which the programs open in no time; and
pictures for it. Standard library only."""

import html
import json
import struct
import zlib

from programs_test import blocks, png, write_checkpoint

WIDTH = 128


def write_model(folder, rotated=0):
    """model.safetensors and tokenizer/; another `rotated` gives other weights."""
    plan = [("logit_scale", []), ("positional_embedding", [24, WIDTH]), ("text_projection", [WIDTH, WIDTH]),
            ("token_embedding.weight", [4096, WIDTH]), ("ln_final.weight", [WIDTH]), ("ln_final.bias", [WIDTH]),
            ("visual.positional_embedding", [36, WIDTH]), ("visual.proj", [WIDTH, WIDTH]), ("visual.conv1.weight", [WIDTH, 3, 8, 8])]  # fmt: skip
    plan += [(f"visual.{norm}.{kind}", [WIDTH]) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")]
    plan += [*blocks("visual.transformer", 4, WIDTH), *blocks("transformer", 3, WIDTH)]
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "model.safetensors", plan=plan[rotated:] + plan[:rotated])
    # CLIP's bytes as letters, each alone and at the end of a word.
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in shown] + [chr(256 + i) for i in range(256 - len(shown))]
    tokens = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2 cleaning: open_clip\n", encoding="utf-8")


def picture(number, side=64, keywords=(), taken=None):
    """Stripes of colours that tell the number; with XMP keywords and an EXIF date where they are given."""
    colours = [bytes(((number * 37 + i * 53) % 256, (number * 11 + i * 101) % 256, (number * 71 + i * 29) % 256)) for i in range(8)]
    rows = b"".join(b"\0" + b"".join(colours[(x // 8 + y // 8 * (number % 7)) % 8] for x in range(side)) for y in range(side))
    data = png(side, side, rows)
    extra = b""
    chunk = lambda kind, content: struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    if taken:
        text = taken.encode() + b"\0"
        # An image file directory with a pointer to EXIF's own, which has DateTimeOriginal.
        exif = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 26, 0) + struct.pack("<HHHIII", 1, 0x9003, 2, len(text), 44, 0) + text
        extra += chunk(b"eXIf", exif)
    if keywords:
        items = "".join(f"<rdf:li>{html.escape(word)}</rdf:li>" for word in keywords)
        xmp = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
               f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>'
               "</rdf:Description></rdf:RDF></x:xmpmeta>")  # fmt: skip
        extra += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode())
    return data[:33] + extra + data[33:]
