#!/usr/bin/env python3
"""Writes tests/texts/fixtures/bpe/goldens.tsv.gz: texts and the ids that the original tokenizers give them.

    python3 -m venv venv
    venv/bin/pip install ftfy==6.3.1 regex==2026.11.15 numpy==2.4.6 tokenizers==0.23.3 transformers==5.23.0
    venv/bin/pip install --no-deps open_clip_torch==3.3.0
    venv/bin/python tests/texts/make_bpe_goldens.py

(Python 3.11 made the committed file. No PyTorch is needed: open_clip's tokenizer.py is loaded alone, with a stand-in.)

Rows, tab-separated; in texts \\, tab, line feed and carriage return are \\\\, \\t, \\n and \\r, other bytes are themselves:
    e  text  open_clip ids  transformers ids ("=": the same)     without start and end of text
    c  context  text  open_clip ids  transformers ids, each with its own padding
    d  ids  open_clip's text  transformers' text
    b  n  CRC-32 of open_clip's ids  of transformers'            for the text "a?! a?! ..." over the code points of block n
"""
import argparse
import gzip
import html.entities
import importlib.util
import json
import pathlib
import random
import sys
import tempfile
import types
import unicodedata
import zlib

import numpy
from ftfy.chardata import CHARMAP_ENCODINGS

CAPTION_WORDS = """a an the of in on with and at by for to from is are photo picture drawing clipart icon silhouette cartoon
logo cat dog horse bird fish tree flower leaf mountain river sea beach sunset city street house car bicycle train boat plane
man woman child people crowd player ball game food pizza cake fruit apple bread cup glass table chair window door book phone
computer red blue green yellow black white orange purple small big old new happy sad young standing sitting running holding
wearing riding flying vintage watercolor 3D HDR 4K B&W close-up black-and-white t-shirt New-York Düsseldorf café naïve""".split()

SAMPLES = """
Ein Mädchen fährt über die Straße nach Köln|L'été, Noël à l'école; ça va, œuvre d'art|El niño comió piñas ¿qué? ¡olé!
Zażółć gęślą jaźń|Příliš žluťoučký kůň úpěl ďábelské ódy|Árvíztűrő tükörfúrógép|Þórður ætlar að fá sér kæfu|Iğdır'ın ılık İLİ ve DİYARBAKIR
Съешь же ещё этих мягких французских булок|Її жовтий ґанок є|ЉУБАВ Ђорђе Џеп|Ο ΟΔΥΣΣΕΥΣ ΚΑΙ Ο ΣΩΚΡΑΤΗΣ: ΛΟΓΟΣ.|Ξεσκεπάζω την ψυχοφθόρα βδελυγμία
敏捷的棕色狐狸跳过懒狗|我能吞下玻璃而不傷身體|いろはにほへと ちりぬるを|カタカナ ﾊﾝｶｸ がぎぐげご が|다람쥐 헌 쳇바퀴에 타고파 한글|คนไทยกินข้าวเหนียว ๑๒๓
यह एक बिल्ली की तस्वीर है ४५|আমি বাংলায় গান গাই ৭৮|ਪੰਜਾਬੀ ਲਿਖਾਈ|ગુજરાતી ચિત્ર|தமிழ் எழுத்து ஔ|తెలుగు అక్షరం|ಕನ್ನಡ ಲಿಪಿ|മലയാളം ചിത്രം|සිංහල අකුරු
صورة قطة سوداء ١٢٣|یک گربهٔ سیاه ۴۵۶|תמונה של חתול שָׁלוֹם|አማርኛ ፊደል|Հայերեն ՏԱՌԵՐ եւ|ქართული ᲥᲐᲠᲗᲣᲚᲘ|ᏣᎳᎩ ꮳꮃꭹ|བོད་ཡིག|မြန်မာစာ|ខ្មែរ អក្សរ|ລາວ ໑໒|ᠮᠣᠩᠭᠣᠯ|ꦗꦮ|ᓀᐦᐃᔭᐍᐏᐣ|ⴰⵎⴰⵣⵉⵖ|𐐔𐐯𐑅𐐨𐑉𐐯𐐻|𒀀𒁀 𓀀𓁐|𝒽𝑒𝓁𝓁𝑜 𝟘𝟙𝟚|Tiếng Việt rất đẹp Ạ Ắ ữ
""".replace("\n", "|").strip("|").split("|")

SCRIPT_RANGES = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x370, 0x3FF), (0x400, 0x52F), (0x530, 0x58F),
    (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F), (0x780, 0x7BF), (0x7C0, 0x7FA), (0x900, 0x97F), (0x980, 0x9FF),
    (0xA00, 0xA7F), (0xA80, 0xAFF), (0xB00, 0xB7F), (0xB80, 0xBFF), (0xC00, 0xC7F), (0xC80, 0xCFF), (0xD00, 0xD7F),
    (0xD80, 0xDFF), (0xE00, 0xE5B), (0xE80, 0xEDF), (0xF00, 0xFFF), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF),
    (0x1200, 0x139F), (0x13A0, 0x13FF), (0x1400, 0x167F), (0x1680, 0x169F), (0x16A0, 0x16FF), (0x1780, 0x17FF),
    (0x1800, 0x18AF), (0x1C80, 0x1CBF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x23FF),
    (0x2460, 0x24FF), (0x2500, 0x27BF), (0x2C00, 0x2DFF), (0x2E80, 0x2FDF), (0x3000, 0x30FF), (0x3130, 0x33FF),
    (0x4E00, 0x9FFF), (0xA000, 0xA4CF), (0xA640, 0xA7FF), (0xAB30, 0xABFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF),
    (0xFB00, 0xFDFF), (0xFE00, 0xFEFF), (0xFF00, 0xFFEF), (0x10000, 0x100FF), (0x10400, 0x104FF), (0x10C80, 0x10CFF),
    (0x11000, 0x117FF), (0x118A0, 0x118FF), (0x12000, 0x123FF), (0x13000, 0x1342F), (0x16E40, 0x16E9F),
    (0x1D100, 0x1D7FF), (0x1E900, 0x1E95F), (0x1F100, 0x1F2FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0x30000, 0x3134A)]

EMOJI = ("👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🏴‍☠️ 🏴󠁧󠁢󠁷󠁬󠁳󠁿 🇩🇪 🇯🇵 🇺🇸 👍🏽 🤦🏿‍♀️ ❤️ ❤️‍🔥 ☺️ ☺︎ #️⃣ 1️⃣ *️⃣ 😀 😂 🥺 🤖 🐱 🐶 🦄 🍕 🚗 ✈️ ⚽ 🎉 💯 ✨ ☀ ☂ ♥ ♫ ✓ ★ "
         "→ ⇒ ∞ ≠ 🅰 🆗 ㊗ 🀄 🃏 🧑🏻‍❤️‍💋‍🧑🏿").split()

TYPOGRAPHY = ["doesn’t", "“quoted”", "…", "l’été – là", "• €5", "™ © ®", "½ × 2 ÷ 3", "voilà là-bas", "às vezes", "à quel point", "30°", "№ 5",
              "²³", "«ça»", "Ångström à la", "¿", "£9", "— ‘a’"]  # fmt: skip

SEED_TEXTS = 3000


def escape(data):
    return data.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def open_clip_tokenizer():
    folder = pathlib.Path(importlib.util.find_spec("open_clip").origin).parent
    torch = types.ModuleType("torch")
    torch.LongTensor = torch.Tensor = torch.long = None
    torch.zeros = lambda *shape, dtype: numpy.zeros(shape, dtype=numpy.int64)
    torch.tensor = numpy.array
    sys.modules["torch"] = torch
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", folder / "tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    del sys.modules["torch"]  # transformers would look for more in it
    return module.SimpleTokenizer()


def transformers_tokenizer(original):
    """The same vocabulary as the two files that transformers reads."""
    from transformers import CLIPTokenizerFast
    names = sorted(original.encoder, key=original.encoder.get)[:-2] + ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in original.bpe_ranks))
        return CLIPTokenizerFast.from_pretrained(folder)


class Texts:
    """One method for each kind of text; each returns bytes or str."""

    def __init__(self, rng):
        self.rng = rng
        self.entities = sorted(html.entities.html5)
        self.marks = [chr(c) for c in range(0x300, 0x1E900) if unicodedata.category(chr(c)) in ("Mn", "Mc")]
        self.assigned = [c for c in range(0x20, 0x32000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
        self.changing = [c for c in self.assigned if chr(c).lower() != chr(c)]
        self.numbers = [c for c in self.assigned if unicodedata.category(chr(c))[0] == "N"]

    def pick(self, items, low, high):
        return [self.rng.choice(items) for _ in range(self.rng.randint(low, high))]

    def caption(self):
        words = self.pick(CAPTION_WORDS, 2, 12)
        style = self.rng.randrange(6)
        if style == 0:
            words = [w.capitalize() for w in words]
        if style == 1:
            words = [w.upper() for w in words]
        text = " ".join(words)
        if style == 2:
            text = text.replace(" ", ", ", 1) + self.rng.choice([".", "!", "...", " (2019)", " #3", " - $4.99", " | Etsy", "?!"])
        if style == 3:
            text = "DSC_%04d.jpg " % self.rng.randrange(10000) + text
        return text

    def script(self):
        low, high = self.rng.choice(SCRIPT_RANGES)
        word = lambda: "".join(chr(self.rng.randint(low, high)) for _ in range(self.rng.randint(1, 6)))
        return " ".join(word() for _ in range(self.rng.randint(1, 4)))

    def sample(self):
        text = self.rng.choice(SAMPLES)
        start = self.rng.randrange(len(text))
        text = text[start:start + self.rng.randint(3, 30)]
        return self.rng.choice([text, text.upper(), text.title(), text.swapcase(), unicodedata.normalize("NFD", text),
                                unicodedata.normalize("NFKD", text)])

    def emoji(self):
        return self.rng.choice(["", " ", "a"]).join(self.pick(EMOJI, 1, 5)) + self.rng.choice(["", "!", " ok", "️", "‍"])

    def entity(self):
        parts = []
        for _ in range(self.rng.randint(1, 4)):
            name = self.rng.choice(self.entities)
            kind = self.rng.randrange(9)
            if kind == 0:
                name = name.upper()
            elif kind == 1:
                name = name.rstrip(";") + self.rng.choice(["x", "é", "1;", " ", "&", ""])
            elif kind == 2:
                name = "amp;" * self.rng.randint(1, 4) + name
            elif kind == 3:
                name = "#%d" % self.rng.choice([0, 9, 10, 13, 34, 38, 39, 59, 60, 65, 128, 133, 153, 160, 173, 0xD800, 0x1F600,
                                               0x110000, 10 ** 23, self.rng.randrange(0x3000)]) + self.rng.choice(["", ";", "a;"])
            elif kind == 4:
                name = self.rng.choice(["#x", "#X"]) + self.rng.choice(
                    ["%x", "%X", "%08x"]) % self.rng.choice([0, 11, 27, 59, 0x80, 0x99, 0xFDD0, 0xFFFE, 0x2019, 0x1F1E9,
                                                              self.rng.randrange(0x11000)]) + self.rng.choice(["", ";", "g;"])
            elif kind == 5:
                name = name[:self.rng.randint(0, len(name))]
            parts.append("&" + name)
        return self.rng.choice(["", " ", "a", "<b>", "\n"]).join(parts)

    def contraction(self):
        ends = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'x", "''s", "'ſ", "’s", "‘ll", "ʼd", "'", "'sup", "'11"]
        return "".join(self.rng.choice(["it", "I", "they", "dog", "", "!", "5", " ", "É"]) + self.rng.choice(ends) +
                       self.rng.choice(["", " ", "-", "."]) for _ in range(self.rng.randint(1, 5)))

    def digits(self):
        return "".join(self.rng.choice([str(self.rng.randrange(10 ** 6)), chr(self.rng.choice(self.numbers)), ".", ",", "x", " ", "%"])
                       for _ in range(self.rng.randint(1, 8)))

    def combining(self):
        return "".join(chr(self.rng.choice([0x61, 0x65, 0x41, 0x3B1, 0x438, 0x4E00, 0x5D0, 0x915, 0x1100, 0x3046])) +
                       "".join(self.pick(self.marks if self.rng.random() < .5 else self.marks[:112], 0, 4))
                       for _ in range(self.rng.randint(1, 4)))

    def noise(self):
        data = bytearray(self.rng.randbytes(self.rng.randint(1, 12)))
        if self.rng.random() < .6:
            data = bytearray(self.rng.choice(SAMPLES + EMOJI).encode()[:self.rng.randint(1, 24)])
            for _ in range(self.rng.randint(1, 3)):
                at = self.rng.randrange(len(data))
                data[at:at + self.rng.randint(0, 1)] = bytes([self.rng.choice(
                    [0x80, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5, 0xFF, self.rng.randrange(256)])])
        return bytes(data)

    def control(self):
        items = [chr(c) for c in range(0x21)] + ["\x7f", "\r\n", "\x1b[31m", "\x1b[0;1m", "\x1b[", "\x1b[٣m", "\ufeff", "\ufffc",
                 "\u206a", "\u2028", "\u2029", "\u00a0", "\u3000", "\u200b", "\u200d", "\u202e", "\u1680", "\u2003", "\u205f",
                 "\u00ad", "a", "b", "Z", "1", "!", "é"]
        return "".join(self.pick(items, 1, 12))

    def special(self):
        items = ["<start_of_text>", "<end_of_text>", "<START_OF_TEXT>", "<ſtart_of_text>", "<|startoftext|>", "<|endoftext|>",
                 "<|STARTOFTEXT|>", "<|EndOfText|>", "&lt;end_of_text&gt;", "</w>", "<", "|", "a", "!", " ", "cat"]
        return "".join(self.pick(items, 1, 5))

    def widths(self):
        items = list("ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬅﬆ“”‘’‚„‛‟«»ʼ…–—") + [chr(c) for c in range(0xFF01, 0xFFE7)] + ["a", " ", "s", "t"]
        return "".join(self.pick(items, 1, 10))

    def anything(self):
        return "".join(chr(c) for c in self.pick(self.assigned, 1, 8))

    def markup(self):
        items = ["<b>", "</b>", "<br/>", "&amp;", "&amp;amp;lt;", "&lt;", "&quot;", "&nbsp;", "&#39;", "&rsquo;", "\n", "AT&T",
                 "Q&A", "a<b", "x &gt y", "&notit;", "&copy2020", "word", "“hi”"]
        return self.rng.choice(["", " "]).join(self.pick(items, 1, 7))

    def case(self):
        greek = "ΑΣσς.'’:Ωaΐ1 -\u0301\u00ad\u02b0ªⅣⓐ"
        if self.rng.random() < .5:
            return "".join(self.pick(greek, 1, 9))
        return "".join(chr(c) for c in self.pick(self.changing, 1, 5)) + self.rng.choice(["İ", "I", "ı", "ẞ", "K", ""])

    def misread(self, text):
        """What a program makes of UTF-8 that takes it for another encoding; most take it for one of two."""
        codec = self.rng.choice(CHARMAP_ENCODINGS if self.rng.random() < .6 else ["latin-1", "sloppy-windows-1252"])
        return text.encode().decode(codec)

    def damaged(self, text):
        """As after one more program that does not know the odd characters of mis-decoded text."""
        at = self.rng.randrange(len(text))
        return self.rng.choice([text[:at] + "\ufffd" + text[at + 1:], text[:at] + "?" + text[at + 1:], text[:at] + text[at + 1:], text[:at + 1],
                                text.replace("\xa0", " "), "".join("\ufffd" if "\x80" <= c <= "\x9f" else c for c in text)])

    def mojibake(self):
        """A piece of a sample, an emoji or typography, mis-decoded up to three times, between others."""
        def piece():
            text = self.rng.choice(SAMPLES) if self.rng.random() < .7 else self.rng.choice(EMOJI + TYPOGRAPHY)
            start = self.rng.randrange(max(1, len(text) - 20))
            return text[start:start + self.rng.randint(1, 20)]

        text = piece()
        for _ in range(self.rng.choice([1, 1, 1, 1, 2, 2, 3])):
            text = self.misread(text)
            if text and self.rng.random() < .3:
                text = self.damaged(text)
        around = [self.rng.choice(["", "", "photo ", "\n", piece(), "“", "ﬁ ", "&amp;", "a"]) for _ in range(2)]
        return around[0] + text + around[1]


PLAN = {"caption": 1500, "script": 2600, "sample": 900, "emoji": 500, "entity": 1500, "contraction": 400, "digits": 300,
        "combining": 600, "noise": 700, "control": 500, "special": 300, "widths": 400, "anything": 1000, "markup": 300, "case": 500, "mojibake": 1500}

EDGE_CASES = [
    b"", b" ", b"\n", b"\0", b"\0\0\0", b"a\0b", b"\xff", b"\xc3", b"a\xe2\x82", b"\xed\xa0\x80\xed\xb0\x80", b"\xf0\x9f\x98",
    "ι ͅ aͅb ᾳ".encode(), b"x" * 200, b"the " * 150, "ab1!".encode() * 100, "😀".encode() * 80, "é".encode() * 70,
    b"aaaa" * 40, b"!" * 130, b"1" * 90, "漢".encode() * 65, b"supercalifragilisticexpialidocious" * 5, "Σ".encode() * 5,
    ("a" + "\u0301\u0323" * 40).encode(), b"&" * 50, b"&amp;" * 30, b"&" + b"amp;" * 30 + b"lt;", b"&#" * 20, b"&eacute&#59;x &lt&#x3b; &#59;", b"a\r\rb\r\n\nc"]


def block_text(block):
    codes = range(block * 256, block * 256 + 256)
    return " ".join("a" + chr(c) + "!" for c in codes if not 0xD800 <= c < 0xE000)


def decode(data):
    return data.decode("utf-8", errors="replace")


def join(ids):
    return b" ".join(b"%d" % i for i in ids)


# What the scripts beside this one make goldens of other tokenizers with.


def parse_options(out):
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "fixtures" / out, type=pathlib.Path)
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--scale", default=1.0, type=float, help="multiplies the number of texts of each kind")
    return parser.parse_args()


def corpus():
    """Captions and samples to learn a vocabulary of. It does not depend on the options: other seeds try other texts on it."""
    texts = Texts(random.Random(0))
    return [texts.caption() for _ in range(SEED_TEXTS)], [texts.sample() for _ in range(SEED_TEXTS)]


def draw(texts, edge_cases, scale):
    """The edge cases, every sample, and PLAN's texts, all as bytes."""
    chosen = list(dict.fromkeys(edge_cases + [s.encode() for s in SAMPLES]))
    for kind, count in PLAN.items():
        for _ in range(round(count * scale)):
            text = getattr(texts, kind)()
            chosen.append(text if isinstance(text, bytes) else text.encode())
    return chosen


def write_rows(path, rows, chosen):
    packed = gzip.compress(b"\n".join(rows) + b"\n", 9, mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    print(f"{path}: {len(chosen)} texts ({len(set(chosen))} different), {len(rows)} rows, {len(packed)} bytes")


def main():
    options = parse_options("bpe/goldens.tsv.gz")
    original = open_clip_tokenizer()
    fast = transformers_tokenizer(original)
    fast_ids = lambda text: fast.backend_tokenizer.encode(text, add_special_tokens=False).ids

    texts = Texts(random.Random(options.seed))
    chosen = draw(texts, EDGE_CASES, options.scale)

    rows = []
    encoded = []
    for data in chosen:
        text = decode(data)
        ours, theirs = original.encode(text), fast_ids(text)
        encoded.append(ours)
        rows.append(b"\t".join([b"e", escape(data), join(ours), b"=" if ours == theirs else join(theirs)]))
    for data in EDGE_CASES + chosen[-200::10]:
        text = decode(data)
        for context in (77, 16, 2):
            ours = original(text, context)[0].tolist()
            theirs = fast(text, truncation=True, padding="max_length", max_length=context)["input_ids"]
            rows.append(b"\t".join([b"c", b"%d" % context, escape(data), join(ours), b"=" if ours == theirs else join(theirs)]))
    for _ in range(200):
        ids = texts.rng.choice(encoded)[:texts.rng.randint(0, 20)]
        ids = ids + [texts.rng.randrange(49408) for _ in range(texts.rng.choice([0, 0, 5]))]
        ours = original.decode(ids).encode()
        theirs = fast.decode(ids).encode()
        rows.append(b"\t".join([b"d", join(ids), escape(ours), escape(theirs)]))
    crc = lambda ids: b"%08x" % zlib.crc32(numpy.array(ids, dtype="<i4").tobytes())
    fast.backend_tokenizer.no_truncation()  # the contexts above left theirs set
    for block in [*range(0x400), *range(0xE00, 0xE10), 0xF00, 0x10FF]:
        if not 0xD8 <= block < 0xE0:
            rows.append(b"\t".join([b"b", b"%d" % block, crc(original.encode(block_text(block))), crc(fast_ids(block_text(block)))]))

    write_rows(options.out, rows, chosen)


if __name__ == "__main__":
    main()
