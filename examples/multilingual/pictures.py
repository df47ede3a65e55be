#!/usr/bin/env python3
"""Gathers pictures that are captioned in many languages, from Debian's packages, for multilingual.sh.

    pictures.py --out DIR --clipart captions.tsv

The pictures are Tux Paint's stamps (tuxpaint-stamps-default: photographs and drawings, with a sentence in up to 77 languages beside each) and emoji
(fonts-noto-color-emoji has them as bitmaps, unicode-cldr-core their names and keywords). --clipart is what openclipart.py writes. A fifth of all
pictures, by a hash of the name, is held out, as in the quickstart. Into DIR go

pictures/                  all of them, at most 96 pixels long: a training run decodes each picture again and again
clipart/captions.tsv       clip art with its English captions, without what is held out
english/captions.tsv       stamps and emoji with English captions alone, likewise
languages/captions.tsv     the same with the captions of all languages
held-out/LANGUAGE.tsv      held-out stamps and emoji with a caption each, a table (filepath, title) for each language that has 200 or more

A stamp's language is named as Tux Paint names it; CLDR's names of the same languages are in CLDR below.
"""

import argparse
import io
import multiprocessing
import re
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quickstart"))
from openclipart import held_out  # noqa: E402

STAMPS = Path("/usr/share/tuxpaint/stamps")
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
ANNOTATIONS = Path("/usr/share/unicode/cldr/common/annotations")
CLIPART = Path("/usr/share/openclipart/png")
# Tux Paint's language codes that CLDR spells otherwise. Variants of one written language are left out.
CLDR = {"nb": "no", "pt": "pt_PT", "pt_BR": "pt", "sr@latin": "sr_Latn", "zh_CN": "zh", "zh_TW": "zh_Hant"}
VARIANTS = {"en_GB", "en_AU", "en_CA", "en_ZA", "ca@valencia"}
LEAST_HELD_OUT = 200
SIDE = 96


def stamps() -> dict[str, dict[str, list[str]]]:
    """Captions by language, by the name of a picture below STAMPS. Drawings of which there is only an SVG are left out."""
    found = {}
    for picture in sorted(STAMPS.rglob("*.png")):
        words = picture.with_suffix(".txt")
        if not words.is_file():
            continue
        captions: dict[str, list[str]] = {}
        for number, line in enumerate(words.read_text("utf-8", "replace").splitlines()):
            language, _, caption = ("en", "", line) if number == 0 else line.partition(".utf8=")
            if caption.strip() and language not in VARIANTS:
                captions[language] = [" ".join(caption.split())]
        found["stamps/" + str(picture.relative_to(STAMPS))] = captions
    return found


def emoji_of_font() -> dict[str, bytes]:
    """The PNG of every emoji that is one character."""
    font = TTFont(FONT, lazy=True)
    strike, names = font["CBDT"].strikeData[0], font.getBestCmap()
    return {chr(point): strike[name].imageData for point, name in sorted(names.items()) if name in strike and point > 0xFF}


def shrink(job: tuple[bytes | Path, Path]) -> str:
    """Writes a smaller copy with its transparency, and says what is wrong with a picture that cannot be read."""
    source, to = job
    # Pillow warns of what is half as large as it refuses.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            small = picture.convert("RGBA")
            small.thumbnail((SIDE, SIDE))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return f"{to.name}: {error}"
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = to.with_suffix(".tmp")
    small.save(unfinished, "png")
    unfinished.rename(to)
    return ""


def emoji(languages: set[str], pictures: dict[str, bytes]) -> dict[str, dict[str, list[str]]]:
    """Their names, twice as often as their keywords, by language."""
    found: dict[str, dict[str, list[str]]] = {}
    for language in sorted(languages):
        file = ANNOTATIONS / f"{CLDR.get(language, language)}.xml"
        if not file.is_file():
            continue
        texts: dict[str, dict[str, str]] = {}
        for node in ElementTree.parse(file).iter("annotation"):
            texts.setdefault(node.get("cp", ""), {})["name" if node.get("type") == "tts" else "keywords"] = (node.text or "").strip()
        for character, text in texts.items():
            if character not in pictures or not text.get("name"):
                continue
            keywords = ", ".join(part.strip() for part in text.get("keywords", "").split("|") if part.strip())
            name = f"emoji/{ord(character):x}.png"
            found.setdefault(name, {})[language] = [text["name"], text["name"], *([keywords] if keywords else [])]
    # Without an English name it is in no stage's captions.
    return {name: captions for name, captions in found.items() if "en" in captions}


def link(at: Path, to: Path) -> None:
    if at.is_symlink():
        at.unlink()
    at.symlink_to(to)


def write_captions(out: Path, name: str, lines: list[tuple[str, str]]) -> None:
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    link(folder / "pictures", Path("../pictures"))
    (folder / "captions.tsv").write_text("".join(f"pictures/{path}\t{caption}\n" for path, caption in lines), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clipart", type=Path, required=True)
    options = parser.parse_args()
    out = options.out.resolve()
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    captions = stamps()
    drawn, glyphs = len(captions), emoji_of_font()
    captions |= emoji({language for of_one in captions.values() for language in of_one}, glyphs)
    lines = [line.split("\t", 1) for line in options.clipart.read_text("utf-8").splitlines()]
    clipart = [("clipart/" + path, caption) for path, caption in lines if not held_out(path)]

    jobs: dict[str, bytes | Path] = {name: STAMPS.parent / name if name.startswith("stamps/") else glyphs[chr(int(Path(name).stem, 16))] for name in captions}
    jobs |= {name: CLIPART / name.removeprefix("clipart/") for name, _ in clipart}
    missing = [(source, pictures / name) for name, source in jobs.items() if not (pictures / name).is_file()]
    with multiprocessing.Pool() as pool:
        faults = [fault for fault in pool.imap_unordered(shrink, missing, chunksize=16) if fault]
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    there = {name for name in jobs if (pictures / name).is_file()}
    captions = {name: texts for name, texts in captions.items() if name in there}
    clipart = [(name, caption) for name, caption in clipart if name in there]
    kept = {name: texts for name, texts in captions.items() if not held_out(name)}

    write_captions(out, "clipart", clipart)
    write_captions(out, "english", [(name, text) for name, texts in kept.items() for text in texts.get("en", [])])
    write_captions(out, "languages", [(name, text) for name, texts in kept.items() for of_one in texts.values() for text in of_one])

    tables: dict[str, list[tuple[str, str]]] = {}
    for name, texts in captions.items():
        if name not in kept:
            for language, of_one in texts.items():
                tables.setdefault(language, []).append((name, of_one[0]))
    folder = out / "held-out"
    folder.mkdir(exist_ok=True)
    for table in folder.glob("*.tsv"):
        table.unlink()
    written = sorted(language for language, rows in tables.items() if len(rows) >= LEAST_HELD_OUT)
    for language in written:
        rows = "".join(f'{pictures / name}\t"{re.sub(chr(34), chr(34) * 2, caption)}"\n' for name, caption in tables[language])
        (folder / f"{language}.tsv").write_text("filepath\ttitle\n" + rows, encoding="utf-8")
    languages = {language for texts in kept.values() for language in texts}
    print(f"{drawn} stamps, {len(captions) - drawn} emoji, {len(captions) - len(kept)} of them held out; {len(languages)} languages, "
          f"{len(written)} of them with {LEAST_HELD_OUT} held-out captions or more", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
