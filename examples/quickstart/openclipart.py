#!/usr/bin/env python3
"""Writes the caption files of Open Clip Art, as Debian's openclipart-png and openclipart-svg install it.

    openclipart.py [--png DIR] [--svg DIR] [--out captions.tsv] [--retrieval retrieval.tsv]

Two tab-separated files come out, sorted by path, both with paths relative to the png folder:

captions.tsv   path, caption; several lines for each image, of which training draws one at a time: the words that the
               drawing's SVG carries as Dublin Core metadata (title, keywords, description) and those of its path,
               the more telling ones repeated.
retrieval.tsv  path, title + keywords; one line for each image that has either. Nothing of the path is in it.

The metadata is what artists typed between 2004 and 2006: titles shared by a thousand drawings, author names, words in
a dozen languages, entities escaped twice. It is kept, but for what is no text at all (markup, web and mail addresses,
the "hash(0x...)", or bare "hash", that a broken script left among the keywords).

`held_out`, `folder_class` and `class_name` say how the examples split and label these paths.
"""

import argparse
import html
import re
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_MARKUP = re.compile(r"<!--.*?-->|<[^<>]*>", re.DOTALL)
_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S+|\S+@\S+\.\S+", re.IGNORECASE)
_PERL_HASH = re.compile(r"\bhash\(0x[0-9a-f]+\)", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NOT_A_WORD = re.compile(r"[\W_]+")


def held_out(path: str) -> bool:
    """True for the fifth of all images that training never sees. `path` is relative to the png folder."""
    stem = str(PurePosixPath(path).with_suffix(""))
    return zlib.crc32(stem.encode("utf-8", "surrogateescape")) % 5 == 0


def folder_class(path: str) -> str | None:
    """The second-level folder an image lies in, at any depth ("animals/mammals"), or None if it lies above one."""
    folders = PurePosixPath(path).parts[:-1]
    return "/".join(folders[:2]) if len(folders) >= 2 else None


def class_name(folder: str) -> str:
    """A class's folder in plain words: "food/meats_and_eggs" is "meats and eggs"."""
    return plain_words(folder.rsplit("/", 1)[-1])


def plain_words(name: str) -> str:
    """A folder's or file's name as words: separators and camel case split, plain numbers dropped."""
    words = _NOT_A_WORD.sub(" ", _CAMEL.sub(" ", name)).split()
    return " ".join(word.lower() for word in words if not word.isdigit())


def clean(text: str | None) -> str:
    """One line of plain text: entities (escaped twice, often) resolved, markup and addresses dropped."""
    text = html.unescape(html.unescape(text or ""))
    text = _PERL_HASH.sub(" ", _ADDRESS.sub(" ", _MARKUP.sub(" ", text)))
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = " ".join(text.split())
    return text if any(letter.isalnum() for letter in text) else ""


@dataclass
class Metadata:
    """What an SVG says of itself, cleaned."""

    title: str = ""
    description: str = ""
    keywords: list[str] = field(default_factory=list)


def _local(tag: object) -> str:
    return tag.rsplit("}", 1)[-1].lower() if isinstance(tag, str) else ""


def _from_tree(root: ElementTree.Element) -> tuple[str, str, list[str]]:
    """Title, description and keywords of the first rdf Work that has any. Agents inside it have titles of their own,
    which is why only its direct children count."""
    for work in (node for node in root.iter() if _local(node.tag) == "work"):
        title = description = ""
        keywords: list[str] = []
        for node in work:
            if _local(node.tag) == "title":
                title = title or "".join(node.itertext())
            elif _local(node.tag) == "description":
                description = description or "".join(node.itertext())
            elif _local(node.tag) == "subject":
                keywords += [item.text or "" for item in node.iter() if _local(item.tag) == "li"]
        if title.strip() or description.strip() or any(keyword.strip() for keyword in keywords):
            return title, description, keywords
    return "", "", []


def _from_broken(data: bytes) -> tuple[str, str, list[str]]:
    """The same from a file that is no well-formed XML, or in no encoding that it declares."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")

    def inside(tag: str, of: str) -> list[str]:
        return re.findall(rf"<(?:\w+:)?{tag}\b[^>]*(?<!/)>(.*?)</(?:\w+:)?{tag}\s*>", of, re.DOTALL | re.IGNORECASE)

    # Agents (creator, publisher, rights) have titles of their own.
    text = re.sub(r"<(?:\w+:)?Agent\b.*?</(?:\w+:)?Agent\s*>", "", text, flags=re.DOTALL)
    work = re.search(r"<(?:\w+:)?Work\b.*", text, re.DOTALL)
    if not work:
        return "", "", []
    subject = inside("subject", work.group())
    # An unclosed <title> would run on into the next agent's: nothing longer than a line or two is a title.
    title = next(iter(inside("title", work.group())), "")
    description = next(iter(inside("description", work.group())), "")
    return title if len(title) < 400 else "", description, inside("li", subject[0]) if subject else []


def read_metadata(svg: Path) -> Metadata:
    """The metadata of one SVG file; empty where there is no such file or it has none."""
    try:
        data = svg.read_bytes()
    except OSError:
        return Metadata()
    try:
        title, description, keywords = _from_tree(ElementTree.fromstring(data))
    except (ElementTree.ParseError, LookupError, ValueError):
        title, description, keywords = _from_broken(data)
    words = [clean(keyword).replace("_", " ").strip() for keyword in keywords]
    words = [word for word in dict.fromkeys(words) if word and word != "hash"]
    return Metadata(clean(title), clean(description), words)


def title_and_keywords(metadata: Metadata) -> str:
    """The text of one image in retrieval: its title and its keywords, or "" where it has neither."""
    return ", ".join(part for part in [metadata.title, *metadata.keywords] if part)


def captions(path: str, metadata: Metadata) -> list[str]:
    """The captions of one image. Training draws one line at random, so a line that stands three times is drawn three
    times as often: title + keywords, the richest text, makes up about half of what the model reads."""
    *folders, name = PurePosixPath(path).with_suffix("").parts
    place = [plain_words(folder) for folder in folders]
    lines = [title_and_keywords(metadata)] * 3
    lines += [metadata.title, metadata.description, " ".join([*place, plain_words(name)])]
    lines += place[:2][-1:]  # the second-level folder alone, or the first where there is no second
    return [line for line in lines if line]


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes caption files for Open Clip Art's PNG images.")
    parser.add_argument("--png", type=Path, default=Path("/usr/share/openclipart/png"), help="folder of the images")
    parser.add_argument("--svg", type=Path, default=Path("/usr/share/openclipart/svg"), help="folder of the drawings")
    parser.add_argument("--out", type=Path, default=Path("captions.tsv"), help="captions file to write")
    parser.add_argument("--retrieval", type=Path, help="retrieval file to write (default: retrieval.tsv beside --out)")
    options = parser.parse_args()

    if not options.png.is_dir():
        print(f"openclipart.py: {options.png} is no folder: install openclipart-png, or name it with --png",
              file=sys.stderr)
        return 1
    paths = sorted(file.relative_to(options.png).as_posix() for file in options.png.rglob("*.png"))
    caption_lines: list[str] = []
    retrieval_lines: list[str] = []
    for path in paths:
        metadata = read_metadata((options.svg / path).with_suffix(".svg"))
        caption_lines += [f"{path}\t{caption}\n" for caption in captions(path, metadata)]
        if text := title_and_keywords(metadata):
            retrieval_lines.append(f"{path}\t{text}\n")
    for file, lines in (
        (options.out, caption_lines),
        (options.retrieval or options.out.with_name("retrieval.tsv"), retrieval_lines),
    ):
        file.write_text("".join(lines), encoding="utf-8", errors="surrogateescape", newline="\n")
    print(f"{len(paths)} images, {sum(map(held_out, paths))} of them held out; {len(caption_lines)} captions; "
          f"{len(retrieval_lines)} with a title or keywords, {len(paths) - len(retrieval_lines)} without")
    return 0


if __name__ == "__main__":
    sys.exit(main())
