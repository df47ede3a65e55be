"""Tables and pictures of architectures.sh: text for the terminal, and a page of HTML that needs nothing else."""

import html
import math

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #111; background: #fff; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 1rem 0; }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #ccc; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.same { color: #666; }
figure { margin: 1.5rem 0; } figcaption { font-size: 0.85rem; color: #444; }
svg { max-width: 100%; height: auto; } pre { overflow-x: auto; background: #f4f4f4; padding: 0.8rem; font-size: 0.75rem; }
"""


def short(value, digits=3):
    """A number with three digits and a suffix."""
    if value is None or not math.isfinite(value):
        return "–"
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"


def _ticks(low, high, is_linear):
    """Round values on an axis: on a logarithmic one as many digits as give three of them."""
    if is_linear:
        step = 10.0 ** math.floor(math.log10((high - low) / 2))
        step *= next(m for m in (5, 2, 1, 0.5) if (high - low) / (step * m) >= 3)
        return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), [1 + i / 10 for i in range(90)]):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**power for power in powers for m in digits if low <= m * 10.0**power <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 9)]
    return found or [low, high]


def _place_labels(points, width, height, left, top):
    """For every (x, y, text) a place beside its point where it covers neither a point nor another label."""
    boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    placed = []
    for x, y, text in points:
        size = 6.6 * len(text)
        candidates = []
        for distance in (0, 14, 28, 42, 56, 70):
            for dy in ((0,) if distance == 0 else (-distance, distance)):
                candidates += [(x + 9, y + 4 + dy), (x - 9 - size, y + 4 + dy), (x - size / 2, y + 4 + dy)]
        best = None
        for at_x, at_y in candidates:
            box = (at_x, at_y - 11, at_x + size, at_y + 3)
            if box[0] < left or box[2] > width - 2 or box[1] < top or box[3] > height:
                continue
            if all(box[2] <= b[0] or box[0] >= b[2] or box[3] <= b[1] or box[1] >= b[3] for b in boxes):
                best = (at_x, at_y, box)
                break
        if best is None:
            at_x, at_y = candidates[0]
            best = (at_x, at_y, (at_x, at_y - 11, at_x + size, at_y + 3))
        boxes.append(best[2])
        placed.append((x, y, best[0], best[1], text))
    return placed


def scatter(points, x_title, y_title, front=None, linear_y=False):
    """An SVG of (x, y, name) on logarithmic axes, or over a linear one. front: names of points to join by a line, in
    order of x."""
    width, height, left, right, top, bottom = 760, 420, 78, 16, 14, 52
    xs, ys = [p[0] for p in points], [p[1] for p in points]

    def limits(values, is_linear):
        low, high = min(values), max(values)
        if is_linear:
            margin = max(0.1 * (high - low), 0.02 * abs(high), 1e-9)
            return low - margin, high + margin
        margin = max((high / low) ** 0.12, 1.08)
        return low / margin, high * margin

    (x0, x1), (y0, y1) = limits(xs, False), limits(ys, linear_y)

    def at(x, y):
        up = (y - y0) / (y1 - y0) if linear_y else math.log(y / y0) / math.log(y1 / y0)
        return left + (width - left - right) * math.log(x / x0) / math.log(x1 / x0), height - bottom - (height - bottom - top) * up

    out = [f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
           f'aria-label="{html.escape(y_title)} against {html.escape(x_title)}" font-family="system-ui, sans-serif" font-size="12">']  # fmt: skip
    out.append(f'<rect x="{left}" y="{top}" width="{width - left - right}" height="{height - top - bottom}" fill="none" stroke="#999"/>')
    for tick in _ticks(x0, x1, False):
        x, _ = at(tick, y0)
        out.append(f'<path d="M{x:.1f} {top}V{height - bottom}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{short(tick)}</text>')
    for tick in _ticks(y0, y1, linear_y):
        _, y = at(x0, tick)
        out.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 12}" text-anchor="middle">{html.escape(x_title)}</text>')
    out.append(f'<text x="16" y="{(top + height - bottom) / 2}" text-anchor="middle" '
               f'transform="rotate(-90 16 {(top + height - bottom) / 2})">{html.escape(y_title)}</text>')  # fmt: skip
    if front:
        by_name = {name: at(x, y) for x, y, name in points}
        path = " ".join(f"{'M' if i == 0 else 'L'}{by_name[n][0]:.1f} {by_name[n][1]:.1f}" for i, n in enumerate(front))
        out.append(f'<path d="{path}" fill="none" stroke="#444" stroke-dasharray="5 4"/>')
    where = [(*at(x, y), name) for x, y, name in points]
    for x, y, text_x, text_y, name in _place_labels(where, width - right, height - bottom, left, top):
        filled = front is None or name in front
        if abs(text_y - 4 - y) > 10:
            out.append(f'<path d="M{x:.1f} {y:.1f}L{text_x + 3:.1f} {text_y - 4:.1f}" stroke="#999" stroke-width="0.7"/>')
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{"#111" if filled else "#fff"}" stroke="#111"/>')
        out.append(f'<text x="{text_x:.1f}" y="{text_y:.1f}">{html.escape(name)}</text>')
    out.append("</svg>")
    return "\n".join(out)


def table(head, lines):
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td{k}>{html.escape(v)}</td>" for v, k in line) + "</tr>" for line in lines)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _by_row(results):
    rows = {}
    for entry in results["rows"]:
        rows.setdefault(entry["row"], []).append(entry)
    return rows


COSTS = [("parameters", "parameters"), ("image FLOP", "image_flops"), ("executed", "image_executed"),
         ("text FLOP", "text_flops"), ("executed", "text_executed"), ("weights, f32", "bytes_f32"), ("bf16", "bytes_bf16"),
         ("int8", "bytes_int8"), ("activations, image", "image_activation_bytes"),
         ("a pair in training", "training_activation_bytes"), ("peak, image", "image_peak_bytes"),
         ("peak, training", "training_peak_bytes"), ("compile, s", "compile_seconds"), ("code bytes", "code_bytes")]  # fmt: skip


def terminal(results):
    """A table of text: a line a variant, the median and its range over rounds."""
    names, rows = list(results["variants"]), _by_row(results)
    wide = max(len(name) for name in names)
    picked = ["image f32 b1", "image f32 b32", "image bf16 b32", "image int8 b32", "text f32 b32", "train f32 b32"]
    lines = [" " * wide + f"  {'param':>7} {'MFLOP':>7}" + "".join(f"  {row:>16}" for row in picked)]
    for name in names:
        cost = results["variants"][name]
        line = f"{name:<{wide}}  {short(cost['parameters']):>7} {cost['image_flops'] * 1e-6:>7.0f}"
        for row in picked:
            entry = next(e for e in rows[row] if e["variant"] == name)
            mark = " " if name == results["base"] or entry["differs_from_base"] else "="
            line += f"  {entry['ms']:>7.3g}{mark}{'x' + format(entry['ratio_to_base'], '.2f'):>8}"
        lines.append(line)
    lines.append(f"milliseconds a call, and the ratio to {results['base']} over paired rounds; = cannot be told from it")
    same = {}
    for entry in results["rows"]:
        if entry["variant"] != results["base"] and not entry["differs_from_base"]:
            same.setdefault(entry["variant"], []).append(entry["row"])
    for name, where in same.items():
        lines.append(f"warning: {name} cannot be told from {results['base']} in {len(where)} of {len(rows)} rows")
    return "\n".join(lines)


def architectures(results):
    names, rows, base = list(results["variants"]), _by_row(results), results["base"]
    limits = ", ".join(f"{k} {v:.0f}" for k, v in results["ceilings_gflops"].items())
    out = ["<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
           f"<title>Architectures compared</title><style>{STYLE}</style><h1>Architectures compared</h1>",
           f"<p>{len(names)} variants; ratios are to <b>{html.escape(base)}</b>. Variants took turns in every row, in processes "
           f"started anew for each of {len(results['rows'][0]['rounds'])} rounds; a time is the median over rounds, with the "
           "smallest and largest. Grey and marked =: cannot be told from the base (paired ratios over rounds, Student's t at a "
           f"chance of 1e-4, and at least 1 %). The machine's ceiling: {limits} GFLOP/s.</p>"]  # fmt: skip
    for row, title in (("image f32 b1", "milliseconds, one image, float32"), ("train f32 b32", "milliseconds, training step of 32 pairs")):
        if len(names) < 2:
            continue
        cost = "image_executed" if row.startswith("image") else "parameters"
        points = [(results["variants"][e["variant"]][cost], e["ms"], e["variant"]) for e in rows[row]]
        label = "executed FLOP an image" if cost == "image_executed" else "parameters"
        out.append(f"<figure>{scatter(points, label, title)}<figcaption>{html.escape(title)} against {label}.</figcaption></figure>")
    out.append("<h2>Times</h2>")
    for row, entries in rows.items():
        lines = []
        for e in entries:
            grey = "" if e["variant"] == base or e["differs_from_base"] else " class=same"
            share = f"{100 * e['share_of_ceiling']:.0f} %" if "share_of_ceiling" in e else "–"
            mark = " =" if grey else ""
            lines.append([(e["variant"], grey), (f"{e['ms']:.3g}", grey), (f"{e['ms_low']:.3g} – {e['ms_high']:.3g}", grey),
                          (f"{e['items_per_second']:.4g}", grey), (f"{e['ratio_to_base']:.3f}{mark}", grey), (share, grey)])  # fmt: skip
        out.append(f"<h3>{row}</h3>" + table(["variant", "ms", "range", "items/s", f"ratio to {base}", "of the ceiling"], lines))
    out.append("<h2>Costs</h2><p>Compiling: a variant's own program; the header that all include and the library that all link took "
               f"{results['common_compile_seconds']:.0f} s, once.</p>")  # fmt: skip
    lines = [[(name, "")] + [(short(results["variants"][name][key], 4), "") for _, key in COSTS] for name in names]
    out.append(table(["variant"] + [title for title, _ in COSTS], lines))
    out.append("<h2>Descriptions</h2>")
    for name in names:
        out.append(f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(results['variants'][name]['description'])}</pre></details>")
    return "\n".join(out) + "</html>\n"
