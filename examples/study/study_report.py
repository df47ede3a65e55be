"""What study.sh reports: a table for the terminal, and a page of HTML with its pictures inside."""

import html
import math
import statistics

import report

# Two-sided quantiles of Student's t at 5 %, by degrees of freedom.
T_95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
MEASURES = [("zero_shot_macro", "zero-shot, mean over classes"), ("t2i_r10", "recall@10, text to image"),
            ("i2t_r10", "recall@10, image to text"), ("held_out_loss", "held-out InfoNCE")]  # fmt: skip
COSTS = [("latency", "milliseconds, one image, float32"), ("image_executed", "executed FLOP an image"),
         ("parameters", "parameters"), ("training_activation_bytes", "bytes of activations, a pair in training")]  # fmt: skip


def means(study, measure):
    """The mean of a measure over a variant's seeds."""
    found = {}
    for trial in study["trials"]:
        if trial.get(measure) is not None:
            found.setdefault(trial["variant"], []).append(trial[measure])
    return {name: statistics.fmean(values) for name, values in found.items()}


def paired_differences(study, measure):
    """variant -> (mean difference to the base over the seeds that both have, half of a 95 % interval or None)."""
    values = {(t["variant"], t["seed"]): t[measure] for t in study["trials"] if t.get(measure) is not None}
    found = {}
    for name in study["variants"]:
        pairs = [values[name, s] - values[study["base"], s] for s in range(study["seeds"])
                 if (name, s) in values and (study["base"], s) in values]  # fmt: skip
        if not pairs:
            continue
        half = None
        if len(pairs) > 1:
            half = T_95.get(len(pairs) - 1, 2.0) * statistics.stdev(pairs) / math.sqrt(len(pairs))
        found[name] = (statistics.fmean(pairs), half)
    return found


def is_different(difference):
    mean, half = difference
    return half is not None and abs(mean) > half


def scaling_points(trials, measure):
    """(compute of training, loss or error) of every trial."""
    values = {"held_out_loss": lambda t: t.get("held_out_loss"),
              "zero_shot_error": lambda t: 1 - t["zero_shot_macro"] if t.get("zero_shot_macro") is not None else None,
              "t2i_error": lambda t: 1 - t["t2i_r10"]}[measure]  # fmt: skip
    points = [(trial["train_flops"], values(trial)) for trial in trials]
    return [(x, y) for x, y in points if y is not None and math.isfinite(y) and y > 0]


def front(points):
    """The names on the Pareto front of (cost, score, name): no other costs as little and scores as high."""
    best, names = -math.inf, []
    for _, score, name in sorted(points, key=lambda p: (p[0], -p[1])):
        if score > best:
            best = score
            names.append(name)
    return names


def forest(study, measure, title):
    """An SVG of every variant's difference to the base with its interval."""
    differences = {n: d for n, d in paired_differences(study, measure).items() if n != study["base"]}
    if not differences:
        return ""
    left, right, width, line, top = 170, 90, 760, 24, 12
    height = top + line * len(differences) + 44
    reach = max(abs(mean) + (half or 0) for mean, half in differences.values()) or 1.0
    # Two seeds have a quantile of 12.7: an interval that leaves the picture gets an arrow's worth of it.
    reach = min(reach, 4 * max(abs(mean) for mean, _ in differences.values()) or reach)

    def at(value):
        return left + (width - left - right) * (min(max(value, -reach), reach) + reach) / (2 * reach)

    out = [f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{html.escape(title)}" '
           'font-family="system-ui, sans-serif" font-size="12">']  # fmt: skip
    out.append(f'<path d="M{at(0):.1f} {top}V{height - 38}" stroke="#999" stroke-dasharray="4 3"/>')
    for index, (name, difference) in enumerate(sorted(differences.items(), key=lambda item: -item[1][0])):
        mean, half = difference
        y = top + line * index + line / 2
        different = is_different(difference)
        out.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{html.escape(name)}</text>')
        if half is not None:
            out.append(f'<path d="M{at(mean - half):.1f} {y}H{at(mean + half):.1f}" stroke="#111" stroke-width="1.5"/>')
        out.append(f'<circle cx="{at(mean):.1f}" cy="{y}" r="4.5" fill="{"#111" if different else "#fff"}" stroke="#111"/>')
        out.append(f'<text x="{width - right + 8}" y="{y + 4}">{mean:+.4f}</text>')
    for value in (-reach, 0, reach):
        out.append(f'<text x="{at(value):.1f}" y="{height - 22}" text-anchor="middle">{value:+.3g}</text>')
    out.append(f'<text x="{at(0):.1f}" y="{height - 5}" text-anchor="middle">{html.escape(title)}, difference to {html.escape(study["base"])}</text></svg>')
    return "\n".join(out)


def curves(study):
    """Small pictures, one a variant: its training loss in black, the base's in grey."""
    by_variant = {}
    for trial in study["trials"]:
        by_variant.setdefault(trial["variant"], trial["curve"])
    if study["base"] not in by_variant:
        return ""
    width, height, out = 236, 130, []
    losses = [y for curve in by_variant.values() for _, y in curve if math.isfinite(y)]
    low, high = min(losses), max(losses)

    def path(curve):
        last = curve[-1][0]
        points = [(34 + (width - 42) * x / last, 20 + (height - 40) * (high - y) / ((high - low) or 1)) for x, y in curve if math.isfinite(y)]
        return " ".join(f"{'M' if i == 0 else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))

    for name, curve in by_variant.items():
        out.append(f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="loss of {html.escape(name)}" '
                   f'font-family="system-ui, sans-serif" font-size="11"><text x="34" y="12">{html.escape(name)}</text>'
                   f'<path d="M34 20V{height - 20}H{width - 8}" fill="none" stroke="#999"/>'
                   f'<text x="30" y="28" text-anchor="end">{high:.1f}</text><text x="30" y="{height - 20}" text-anchor="end">{low:.1f}</text>'
                   f'<text x="{width - 8}" y="{height - 6}" text-anchor="end">{curve[-1][0]} steps</text>'
                   f'<path d="{path(by_variant[study["base"]])}" fill="none" stroke="#bbb" stroke-width="3"/>'
                   f'<path d="{path(curve)}" fill="none" stroke="#111"/></svg>')  # fmt: skip
    return "\n".join(out)


def latency(study):
    return {row["variant"]: row["ms"] for row in study["rows"] if row["row"] == "image f32 b1"}


def pareto_points(study, cost, measure):
    scores, times = means(study, measure), latency(study)
    points = []
    for name, score in scores.items():
        value = times.get(name) if cost == "latency" else study["variants"][name].get(cost)
        if value and score > 0:
            points.append((value, score, name))
    return points


def pareto(study, cost, measure, x_title, y_title):
    points = pareto_points(study, cost, measure)
    return report.scatter(points, x_title, y_title, front(points), linear_y=True) if len(points) > 1 else ""


def main_measures(study):
    """Recall first, whose many queries scatter less from seed to seed, unless captions are the names of classes."""
    found = ["t2i_r10", "zero_shot_macro"] if means(study, "zero_shot_macro") else ["t2i_r10"]
    return found[::-1] if study["captions_are_classes"] else found


def pictures(study):
    """The two pictures that say most, as files of their own."""
    measure = main_measures(study)[0]
    title = dict(MEASURES)[measure]
    found = {"pareto": pareto(study, "image_executed", measure, dict(COSTS)["image_executed"], title),
             "differences": forest(study, measure, title)}  # fmt: skip
    head = '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff"'
    return {name: picture.replace("<svg", head, 1) for name, picture in found.items() if picture}


def terminal(study):
    names = [n for n in study["variants"] if any(t["variant"] == n for t in study["trials"])]
    if not names:
        return "\n".join(["no trial came to its end", *(f"{f['variant']}: {f['error']}" for f in study["failures"])])
    wide = max(map(len, names))
    times = latency(study)
    lines = [" " * wide + "".join(f"  {title:>28}" for _, title in MEASURES) + "    image ms   params"]
    for name in names:
        line = f"{name:<{wide}}"
        for measure, _ in MEASURES:
            value, difference = means(study, measure).get(name), paired_differences(study, measure).get(name)
            if value is None or difference is None:
                line += f"  {'–':>28}"
                continue
            mean, half = difference
            text = f"{value:.4f} ({mean:+.4f}" + (f" ± {half:.4f})" if half is not None else ")")
            line += f"  {text:>28}"
        lines.append(line + f"  {times.get(name, math.nan):>10.3g} {report.short(study['variants'][name]['parameters']):>8}")
    lines.append(f"in brackets: the difference to {study['base']} over the same seeds, with a 95 % interval, which one in twenty equal variants leaves")
    same = [n for n in names if n != study["base"] and not any(is_different(paired_differences(study, m).get(n, (0, None))) for m, _ in MEASURES)]
    if same:
        lines.append(f"warning: cannot be told from {study['base']} with {study['seeds']} seeds: {', '.join(same)}")
    for failure in study["failures"]:
        lines.append(f"failed: {failure['variant']}, seed {failure['seed']}: {failure['error']}")
    return "\n".join(lines)


def page(study):
    out = ["<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
           f"<title>Architecture study</title><style>{report.STYLE}</style><h1>Architecture study</h1>",
           f"<p>{len(study['variants'])} variants of {html.escape(study['list'])}, each trained for {html.escape(study['budget'])} with "
           f"{study['seeds']} seeds; scores are means over seeds. Filled circles: on the Pareto front, or different from "
           f"<b>{html.escape(study['base'])}</b> at 95 % over paired seeds, as one in twenty equal variants is by chance. A few seeds of one budget on one data set say little about "
           "others.</p>"]  # fmt: skip
    for failure in study["failures"]:
        out.append(f"<p>Failed: {html.escape(failure['variant'])}, seed {failure['seed']}: {html.escape(failure['error'])}</p>")
    out.append("<h2>Accuracy against cost</h2>")
    for measure in main_measures(study):
        measure_title = dict(MEASURES)[measure]
        for cost, title in COSTS:
            picture = pareto(study, cost, measure, title, measure_title)
            if picture:
                out.append(f"<figure>{picture}<figcaption>{html.escape(measure_title)} against {html.escape(title)}; dashed: the Pareto front.</figcaption></figure>")
    out.append("<h2>Differences over paired seeds</h2>")
    for each, title in MEASURES:
        out.append(f"<figure>{forest(study, each, title)}</figure>")
    if study["fits"]:
        out.append("<h2>Scaling</h2>")
        titles = {"held_out_loss": "held-out InfoNCE", "zero_shot_error": "1 − zero-shot, mean over classes", "t2i_error": "1 − recall@10"}
        for each, found in study["fits"].items():
            _, power, _, error = found["fit"]
            uncertain = f" ± {error:.3f} (standard error)" if math.isfinite(error) else ""
            points = [(x, y, "") for x, y in found["points"]]
            out.append(f"<figure>{report.scatter(points, 'FLOP of training', titles[each])}<figcaption>{titles[each]} ∝ "
                       f"compute<sup>{power:.3f}</sup>{uncertain}, {len(points)} trials of the family.</figcaption></figure>")  # fmt: skip
    out.append("<h2>Training loss</h2>" + f"<figure>{curves(study)}<figcaption>Black: the variant, grey: {html.escape(study['base'])}; first seed. "
               "Losses of another kind, as the sigmoid loss, have another scale.</figcaption></figure>")  # fmt: skip
    out.append("<h2>Trials</h2>")
    keys = ["variant", "seed", "samples", "train_seconds", "final_train_loss", "held_out_loss", "zero_shot_top1", "zero_shot_macro", "t2i_r10", "i2t_r10"]
    lines = [[(f"{t[k]:.4g}" if isinstance(t.get(k), float) else "–" if t.get(k) is None else str(t[k]), "") for k in keys] for t in study["trials"]]
    out.append(report.table(keys, lines))
    out.append("<h2>Architectures</h2>")
    for name, cost in study["variants"].items():
        out.append(f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(cost['description'])}</pre></details>")
    return "\n".join(out) + "</html>\n"
