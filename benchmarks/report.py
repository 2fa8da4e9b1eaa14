"""Write results.json and a page that shows it: one file, nothing loaded from elsewhere."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import scatter
from benchmarks.timing import END_TO_END, REQUIRED_SAMPLES, STAGES, percentile_text
from kerasvision import visualize
from kerasvision.files import write_json, write_text

TASK_TITLES = {"detection": "Object detection", "segmentation": "Semantic segmentation"}
METRICS = {"detection": ("AP", "AP50", "AP75"), "segmentation": ("mIoU", "pixel_accuracy", "dice")}
METRIC_TITLES = {"pixel_accuracy": "pixel\naccuracy", "dice": "Dice"}
STAGE_TITLES = {
    "decode": "decode",
    "preprocess": "pre-\nprocess",
    "network": "network",
    "postprocess": "post-\nprocess",
    END_TO_END: "total\np50",
}
# The page may load nothing: what it needs is inside.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_COLOURS = 8  # --c0 … --c7 in report.css


def write(document: dict[str, Any], pictures: Sequence, folder) -> Path:
    """Write ``results.json`` and ``report.html`` into `folder`, each whole or not at all.

    Args:
        document: What `benchmarks.run.benchmark` describes.
        pictures: `benchmarks.run.Picture` of ground truth and predictions.
        folder: Made if it does not exist.

    Returns:
        Path of report.html.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", document)
    return write_text(folder / "report.html", page(document, pictures))


def page(document: dict[str, Any], pictures: Sequence = ()) -> str:
    """Return the HTML page of a results document; see `write`."""
    data, here = document["data"], Path(__file__).parent
    environment = document["environment"]
    title = f"Benchmark on {data['name']}, {data['split']} split"
    colours = {model["name"]: f"var(--c{number % _COLOURS})" for number, model in enumerate(document["models"])}
    sections = []
    for task, task_title in TASK_TITLES.items():
        models = [model for model in document["models"] if model["task"] == task]
        if models:
            drawn = [picture for picture in pictures if picture.task == task]
            sections.append(_task_section(task, task_title, models, drawn, colours))
    summary = (
        f"{data['images']} images · {environment['backend']}, {environment['precision']} · "
        f"{environment['accelerator'] or environment['cpu']} · "
        f"{document['created'][:16].replace('T', ' ')} UTC"
    )
    notes = "".join(f"<li>{_text(note)}</li>" for note in document["notes"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{_text(title)}</title>
<style>
{(here / "report.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>{_text(title)}</h1>
<p class="quiet">{_text(summary)}</p>
{"".join(sections)}
<h2>Environment</h2>
<div class="card">{_facts(document)}</div>
<h2>Notes</h2>
<div class="card"><ul class="notes">{notes}</ul></div>
</main>
<div id="tip" role="tooltip" hidden></div>
<script>
{(here / "report.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _text(value) -> str:
    return html.escape(str(value))


def _task_section(task: str, title: str, models: list[dict], pictures: Sequence, colours: dict[str, str]) -> str:
    parts = [f"<h2>{title}</h2>", f'<div class="card">{_summary_table(task, models, colours)}</div>']
    plot = _plot(task, models, colours)
    if plot:
        parts.append(f'<div class="card">{plot}</div>')
    parts.append(f'<div class="card">{_stage_table(models, colours)}</div>')
    parts.append(f'<div class="card">{_class_table(task, models, colours)}</div>')
    if pictures:
        parts.append(f'<div class="card">{_samples(pictures)}</div>')
    return "\n".join(parts)


# -- Tables ----------------------------------------------------------------------------------------------


def _head(title: str, first: str = "descending") -> str:
    return f'<th scope="col" data-first="{first}"><button type="button">{_text(title)}</button></th>'


def _name_cell(name: str, colours: dict[str, str]) -> str:
    dot = f'<span class="dot" style="background:{colours[name]}"></span>'
    return f'<td data-value="{_text(name)}">{dot}{_text(name)}</td>'


def _number_cells(values: Sequence[float | None], pattern: str, better: str | None = None) -> list[str]:
    """Return one cell for each model; the best is marked if there is something to compare."""
    known = [value for value in values if value is not None]
    best = None
    if better and len(known) > 1 and min(known) < max(known):
        best = max(known) if better == "more" else min(known)
    cells = []
    for value in values:
        if value is None:
            cells.append('<td class="few">–</td>')
        else:
            mark = ' class="best"' if value == best else ""
            cells.append(f'<td{mark} data-value="{value:.10g}">{pattern.format(value)}</td>')
    return cells


def _percentile_cell(summary: dict, name: str) -> str:
    value = summary[name]
    if value is None:
        title = f"{summary['samples']} timed batches; {name} needs {REQUIRED_SAMPLES[name]}"
        return f'<td class="few" title="{title}">{_text(percentile_text(summary, name))}</td>'
    return f'<td data-value="{value:.10g}">{percentile_text(summary, name)}</td>'


def _table(heads: list[str], columns: list[list[str]]) -> str:
    rows = "".join(f"<tr>{''.join(cells)}</tr>" for cells in zip(*columns, strict=True))
    return (
        '<div class="scroll"><table class="sortable"><thead><tr>'
        f"{''.join(heads)}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _times(model: dict, batch_size: int) -> dict:
    return next(times for times in model["timing"] if times["batch_size"] == batch_size)


def _batch_sizes(models: list[dict]) -> list[int]:
    return [times["batch_size"] for times in models[0]["timing"]]


def _summary_table(task: str, models: list[dict], colours: dict[str, str]) -> str:
    heads = [_head("model", "ascending")]
    columns = [[_name_cell(model["name"], colours) for model in models]]
    for metric in METRICS[task]:
        heads.append(_head(METRIC_TITLES.get(metric, metric)))
        values = [model["accuracy"]["metrics"].get(metric) for model in models]
        columns.append(_number_cells(values, "{:.3f}", "more"))
    for batch_size in _batch_sizes(models):
        summaries = [_times(model, batch_size)["stages"][END_TO_END] for model in models]
        if batch_size == _batch_sizes(models)[0]:
            for name in REQUIRED_SAMPLES:
                heads.append(_head(f"batch {batch_size}\n{name} ms", "ascending"))
                columns.append([_percentile_cell(summary, name) for summary in summaries])
        heads.append(_head(f"batch {batch_size}\nimages/s"))
        rates = [_times(model, batch_size)["images_per_second"] for model in models]
        columns.append(_number_cells(rates, "{:.1f}", "more"))
    for title, values, pattern in (
        ("params\nM", [model["parameters"] / 1e6 for model in models], "{:.2f}"),
        ("MACs\nG", [model["macs"] / 1e9 for model in models], "{:.2f}"),
        ("memory\nMB", [model["memory"] and model["memory"]["peak_bytes"] / 1e6 for model in models], "{:.0f}"),
    ):
        heads.append(_head(title, "ascending"))
        columns.append(_number_cells(values, pattern, "less"))
    return (
        "<h3>Accuracy and speed</h3>"
        '<p class="quiet">Times are end to end: from an image file to results in original pixels.</p>'
        + _table(heads, columns)
    )


def _stage_table(models: list[dict], colours: dict[str, str]) -> str:
    pairs = [(model, times) for model in models for times in model["timing"]]
    heads = [_head("model", "ascending"), _head("batch", "ascending")]
    columns = [
        [_name_cell(model["name"], colours) for model, _ in pairs],
        _number_cells([times["batch_size"] for _, times in pairs], "{:d}"),
    ]
    for stage in (*STAGES, END_TO_END):
        heads.append(_head(STAGE_TITLES[stage], "ascending"))
        columns.append([_percentile_cell(times["stages"][stage], "p50") for _, times in pairs])
    for name in ("p90", "p99"):
        heads.append(_head(f"total\n{name}", "ascending"))
        columns.append([_percentile_cell(times["stages"][END_TO_END], name) for _, times in pairs])
    heads.append(_head("timed\nbatches"))
    columns.append(_number_cells([times["stages"][END_TO_END]["samples"] for _, times in pairs], "{:d}"))
    heads.append(_head("share", "ascending"))
    columns.append([_share_bar(times) for _, times in pairs])
    key = "".join(f'<span><i style="background:var(--{stage})"></i>{stage}</span>' for stage in STAGES)
    return (
        "<h3>Where the time goes</h3>"
        '<p class="quiet">Median milliseconds for one batch; the bar shows the share of each stage.</p>'
        f'<div class="key">{key}</div>' + _table(heads, columns)
    )


def _share_bar(times: dict) -> str:
    means = {stage: times["stages"][stage]["mean"] for stage in STAGES}
    total = sum(means.values()) or 1.0
    spans = "".join(
        f'<span style="width:{100 * mean / total:.2f}%;background:var(--{stage})" '
        f'title="{stage} {100 * mean / total:.0f}%"></span>'
        for stage, mean in means.items()
    )
    return f'<td data-value="{means["network"] / total:.4f}"><div class="bar">{spans}</div></td>'


def _class_table(task: str, models: list[dict], colours: dict[str, str]) -> str:
    figure = "AP" if task == "detection" else "IoU"
    names = list(dict.fromkeys(name for model in models for name in model["accuracy"]["per_class"]))
    heads = [_head("class", "ascending"), *(_head(model["name"]) for model in models)]
    columns = [[f'<td data-value="{_text(name)}">{_text(name)}</td>' for name in names]]
    for model in models:
        cells = []
        for name in names:
            value = model["accuracy"]["per_class"].get(name)
            if value is None:
                cells.append('<td class="few">–</td>')
            else:
                cells.append(f'<td class="heat" style="--v:{value:.3f}" data-value="{value:.6f}">{value:.3f}</td>')
        columns.append(cells)
    opened = " open" if len(names) <= 24 else ""
    return f"<details{opened}><summary>{figure} of each class</summary>{_table(heads, columns)}</details>"


# -- Plot, pictures, environment -------------------------------------------------------------------------


def _plot(task: str, models: list[dict], colours: dict[str, str]) -> str:
    metric, batch_size = METRICS[task][0], _batch_sizes(models)[0]
    marks = []
    for model in models:
        summary = _times(model, batch_size)["stages"][END_TO_END]
        accuracy = model["accuracy"]["metrics"].get(metric)
        if accuracy is None or summary["p50"] is None:
            continue
        tip = (
            f"{model['name']}\n{metric} {accuracy:.3f}\n{summary['p50'] * 1e3:.1f} ms at batch {batch_size}\n"
            f"{model['parameters'] / 1e6:.2f} M parameters"
        )
        marks.append(scatter.Mark(model["name"], summary["p50"] * 1e3, accuracy, colours[model["name"]], tip))
    if not marks:
        return ""
    return scatter.svg(marks, x_title=f"median end-to-end time at batch {batch_size}, ms", y_title=metric)


def _samples(pictures: Sequence) -> str:
    names = list(dict.fromkeys(picture.image_name for picture in pictures))
    sources = list(dict.fromkeys(picture.source for picture in pictures))
    parts = ['<h3>Sample predictions</h3><div class="samples">']
    for row, name in enumerate(names, start=1):
        for picture in pictures:
            if picture.image_name != name:
                continue
            content = base64.b64encode(visualize.encode_image(picture.pixels, "JPEG", quality=85)).decode()
            height, width = picture.pixels.shape[:2]
            caption = f"<b>{_text(picture.source)}</b>" + (f" · {_text(name)}" if picture.source == sources[0] else "")
            parts.append(
                f'<figure style="grid-row:{row};grid-column:{sources.index(picture.source) + 1}">'
                f"<figcaption>{caption}</figcaption>"
                f'<img width="{width}" height="{height}" alt="{_text(picture.source)} of {_text(name)}" '
                f'src="data:image/jpeg;base64,{content}"></figure>'
            )
    return "".join(parts) + "</div>"


def _facts(document: dict[str, Any]) -> str:
    environment, data = document["environment"], document["data"]
    memory = environment["memory_bytes"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    small, large = ("×".join(str(side) for side in data[key]) for key in ("smallest_hw", "largest_hw"))
    facts = {
        "data": f"{data['name']}, {data['split']} split, {data['images']} images of "
        + (small if small == large else f"{small} to {large}")
        + " pixels (height×width)",
        "processor": f"{environment['cpu']}, {environment['cores']} cores"
        + (f", {memory / 2**30:.0f} GiB memory" if memory else ""),
        "accelerator": environment["accelerator"] or "none",
        "system": environment["platform"],
        "backend": f"{environment['backend']}, {environment['precision']}",
        "versions": versions,
        "commit": environment["commit"] or "not a git checkout",
        "variables": ", ".join(f"{name}={value}" for name, value in environment["variables"].items()) or "none set",
        "network input": "; ".join(
            f"{model['name']} {'×'.join(str(side) for side in model['macs_hw'])}" for model in document["models"]
        ),
    }
    return '<dl class="facts">' + "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items()) + "</dl>"
