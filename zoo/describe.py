"""A model's sheet, as plain text and for rich."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.panel import Panel

    from kerasvision.ops.resizing import ResizeRule
    from zoo.registry import Entry, Weights


def rows(entry: "Entry") -> list[tuple[str, str]]:
    """Return (label, value) of the facts about the model itself."""
    result = [("task", entry.task), ("about", entry.description), ("paper", entry.paper)]
    result.append(("license", entry.license))
    of_classes = f" with {entry.macs_classes} classes" if entry.macs_classes else ""
    if entry.parameters is not None:
        result.append(("parameters", f"{entry.parameters / 1e6:.2f} M{of_classes}"))
    if entry.macs is not None and entry.macs_hw is not None:
        height, width = entry.macs_hw
        result.append(("MACs", f"{entry.macs / 1e9:.2f} G at {height}×{width}{of_classes}"))
    result.append(("builder", entry.builder))
    if entry.scratch_options:
        result.append(("scratch", _options(entry.scratch_options)))
    default = entry.default_weights
    if default is not None and default.class_names:
        result.append(("classes", _shortened(tuple(default.class_names))))
    return [(label, value) for label, value in result if value]


def weight_rows(weights: "Weights") -> list[tuple[str, str]]:
    """Return (label, value) of the facts about one set of weights."""
    fills = (
        f"{weights.fills or 'the backbone'} only" if weights.part == "backbone" else f"{weights.num_classes} classes"
    )
    result = [("fills", fills), ("source", weights.source), ("sha256", weights.sha256)]
    if weights.size_bytes:
        result.append(("size", f"{weights.size_bytes / 1e6:.1f} MB"))
    if weights.resize_rule is not None:
        result.append(("resize", _resize(weights.resize_rule)))
    result.append(("license", weights.license))
    result.append(("reported", _figures(weights.reported) or "nothing"))
    result.append(("measured", _figures(weights.measured) or "not yet"))
    if weights.options:
        result.append(("options", _options(weights.options)))
    if weights.recipe:
        result.append(("recipe", weights.recipe))
    return result


def as_text(entry: "Entry") -> str:
    """Return the sheet as lines of plain text."""
    lines = [entry.name, *(f"  {label:<11}{value}" for label, value in rows(entry))]
    if not entry.weights:
        lines.append("  weights    none published; zoo.get returns random ones")
    for weights in entry.weights:
        default = " (default)" if weights.tag == entry.default else ""
        lines.append(f"  weights    {entry.name}.{weights.tag}{default}")
        lines += [f"    {label:<9}{value}" for label, value in weight_rows(weights)]
    return "\n".join(lines)


def as_panel(entry: "Entry") -> "Panel":
    """Return the sheet as a rich panel."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    def table(pairs: list[tuple[str, str]]) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, value in pairs:
            grid.add_row(label, Text(value))
        return grid

    parts: list[Table | Text] = [table(rows(entry))]
    for weights in entry.weights:
        default = "  default" if weights.tag == entry.default else ""
        parts += [Text(f"\n.{weights.tag}{default}", style="bold"), table(weight_rows(weights))]
    if not entry.weights:
        parts.append(Text("\nno published weights; zoo.get returns random ones", style="dim"))
    return Panel(Group(*parts), title=f"[bold]{entry.name}", title_align="left")


def _options(options) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())


def _figures(figures) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, (int, float)) else f"{name} {value}" for name, value in figures.items()
    )


def _resize(rule: "ResizeRule") -> str:
    if rule.mode == "shortest_side":
        longest = f", longest at most {rule.longest}" if rule.longest else ""
        text = f"shortest side {rule.shortest}{longest}"
    elif rule.size_hw is not None:
        text = f"{rule.mode} to {rule.size_hw[0]}×{rule.size_hw[1]}"
    else:
        text = "none, any size"
    return text + (", antialiased" if rule.antialias else "")


def _shortened(names: tuple[str, ...], most: int = 12) -> str:
    listed = [name for name in names if name not in ("N/A", "__background__")]
    more = f" … ({len(listed)} named)" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
