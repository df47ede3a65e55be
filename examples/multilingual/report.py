#!/usr/bin/env python3
"""Says what fine-tuning brought each language: a table on standard output, and report.html with a picture of it.

    report.py --before english.tsv --after languages.tsv --out report.html [--names en.xml]

Both tables are what recall prints: language, pairs, recall at 10 of pictures by captions, and of captions by pictures. The six languages of the
table were named before anything was measured; the picture has all.
"""

import argparse
import html
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

NAMED = ("sl", "de", "es", "hi", "ja", "ru")
# As CLDR spells what Tux Paint spells otherwise.
SPELLED = {"zh_CN": "zh_Hans", "zh_TW": "zh_Hant"}


def read(path: Path) -> dict[str, tuple[int, float, float]]:
    rows = (line.split("\t") for line in path.read_text("utf-8").splitlines())
    return {language: (int(pairs), float(of_pictures), float(of_captions)) for language, pairs, of_pictures, of_captions in rows}


def language_names(path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    if not path.is_file():
        return names
    for node in ElementTree.parse(path).iter("language"):
        if node.text and node.text.strip():
            names.setdefault(node.get("type", ""), node.text.strip())
    return names


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def picture(rows: list[tuple[str, float, float, float]]) -> str:
    """Bars: before and after, with what chance would find."""
    height, left, width = 18, 190, 460
    most = max(after for _, _, after, _ in rows)
    scale = width / max(most, 1e-9)
    parts = []
    for number, (name, before, after, chance) in enumerate(rows):
        y = number * height
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{html.escape(name)}</text>'
                     f'<rect x="{left}" y="{y + 2}" width="{after * scale:.1f}" height="7" class="after"/>'
                     f'<rect x="{left}" y="{y + 9}" width="{before * scale:.1f}" height="5" class="before"/>'
                     f'<line x1="{left + chance * scale:.1f}" x2="{left + chance * scale:.1f}" y1="{y}" y2="{y + 16}" class="chance"/>'
                     f'<text x="{left + after * scale + 6:.1f}" y="{y + 12}" class="value">{percent(after)}</text>')
    return f'<svg viewBox="0 0 {left + width + 70} {len(rows) * height}" role="img" aria-label="recall at 10 by language">{"".join(parts)}</svg>'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", type=Path, default="/usr/share/unicode/cldr/common/main/en.xml", help="what languages are called (CLDR); without it, by their codes")
    options = parser.parse_args()
    before, after, names = read(options.before), read(options.after), language_names(options.names)
    if before.keys() != after.keys():
        print(f"report.py: {options.after}: expected the languages of {options.before}, found others", file=sys.stderr)
        return 1

    def name(language: str) -> str:
        base, _, script = language.partition("@")
        plain = names.get(SPELLED.get(language, base), base)
        return f"{plain} ({script})" if script else plain

    others = [language for language in after if language != "en"]
    if not others:
        print(f"report.py: {options.after}: expected languages beside English, found none", file=sys.stderr)
        return 1
    named = [("en", name("en")), *((language, name(language)) for language in NAMED if language in after)]
    lines = [("", "pairs", "picture by caption: before", "after", "caption by picture: before", "after", "chance")]
    for language, word in named:
        lines.append((word, str(after[language][0]), percent(before[language][1]), percent(after[language][1]), percent(before[language][2]), percent(after[language][2]),
                      percent(10 / after[language][0])))

    def mean(of: dict[str, tuple[int, float, float]], column: int) -> float:
        return sum(of[language][column] for language in others) / len(others)

    lines.append((f"mean of {len(others)} languages", "", percent(mean(before, 1)), percent(mean(after, 1)), percent(mean(before, 2)), percent(mean(after, 2)), ""))
    widths = [max(len(line[i]) for line in lines) for i in range(7)]
    print("Recall at 10 on held-out stamps and emoji")
    for line in lines:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip())

    rows = sorted(((name(language), before[language][1], after[language][1], 10 / after[language][0]) for language in after), key=lambda row: -row[2])
    cells = ["".join(f"<{'th' if i == 0 else 'td'}>{html.escape(cell)}</{'th' if i == 0 else 'td'}>" for cell in line) for i, line in enumerate(lines)]
    options.out.write_text(f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>What a CLIP understands of {len(after)} languages</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff }}
table {{ border-collapse: collapse }} th, td {{ padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }} td {{ white-space: nowrap }} th:first-child, td:first-child {{ text-align: left }}
svg {{ width: 100%; font: 12px system-ui, sans-serif }} .after {{ fill: #2a7a4b }} .before {{ fill: #b9b9b9 }} .chance {{ stroke: #c03030; stroke-width: 1 }} .value {{ fill: #555 }}
</style></head><body>
<h1>What a CLIP understands of {len(after)} languages</h1>
<p>Recall at 10 among held-out stamps and emoji: the share of captions whose picture is among the ten that fit them best, and of pictures likewise. Before: trained on
English captions alone. After: fine-tuned on pictures whose captions are drawn from all languages; none of the held-out pictures was among them.</p>
<table>{"".join(f"<tr>{line}</tr>" for line in cells)}</table>
<h2>Pictures found by captions</h2>
<p><span style="color:#2a7a4b">■</span> after, <span style="color:#b9b9b9">■</span> before, <span style="color:#c03030">|</span> chance</p>
{picture(rows)}
</body></html>
""", encoding="utf-8")
    print(f"{options.out}: the same for all {len(after)} languages, with a picture")
    return 0


if __name__ == "__main__":
    sys.exit(main())
