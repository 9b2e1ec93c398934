"""The results of the example as a table and as a picture; both are made from the figures that are saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["draw", "table"]

_COLOURS = {
    "krum": "#2a6fbb",
    "multi_krum": "#5b4fa8",
    "trimmed_mean": "#0b6e4f",
    "median": "#8a6d00",
    "mean": "#777777",
}
Figures = Mapping[str, Any]


def table(figures: Figures) -> str:
    """Final accuracy, attacks down, aggregators across, each beside Flower's own; with what has to be said below."""
    rules, attacks = _distinct(figures, "aggregator"), _distinct(figures, "attack")
    cells = {(result["attack"], result["aggregator"]): result for result in figures["results"]}
    header = ["attack", *(f"{words}{rule}" for rule in rules for words in ("", "Flower "))]
    lines = [header, *([attack, *_row(cells, attack, rules)] for attack in attacks)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([_title(figures), "", text[0], "-" * len(text[0]), *text[1:], "", *_notes(figures)])


def _row(cells: Mapping[tuple[str, str], Figures], attack: str, rules: list[str]) -> list[str]:
    row = []
    for rule in rules:
        result = cells[attack, rule]
        row += [_ours(result), _flowers(result)]
    return row


def _ours(result: Figures) -> str:
    return "paused" if result["paused"] else f"{result['accuracy']:.3f}"


def _flowers(result: Figures) -> str:
    if "finite" in result["flower_problem"]:
        return "NaN"
    if result["flower_problem"]:
        return "crashed"
    mark = "" if result["flower_given_updates_of"] == result["aggregator"] else "*"
    return f"{result['flower_accuracy']:.3f}{mark}"


def _title(figures: Figures) -> str:
    noise = "attestation" if figures["unsafe_seed"] is None else "no epsilon: UNSAFE injected noise; attestation"
    return (
        f"Accuracy on public images after {figures['rounds']} rounds, {figures['clients']} clients, the last of "
        f"them hostile; at most epsilon {figures['target_epsilon']:g} at delta {figures['delta']:g} per image "
        f"({noise} SIMULATED)"
    )


def _notes(figures: Figures) -> list[str]:
    results = figures["results"]
    notes = [f"paused: {r['aggregator']} under {r['attack']}: {r['paused']}" for r in results if r["paused"]]
    notes += [
        f"Flower {r['aggregator']} under {r['attack']}: {r['flower_problem']}" for r in results if r["flower_problem"]
    ]
    notes += [
        f"krum under {r['attack']}: the hostile update is the one that was chosen in "
        f"{r['rounds_that_used_the_last_client']} of {len(r['accuracy_by_round'])} rounds"
        for r in results
        if r["aggregator"] == "krum" and r["attack"] != "none" and r["rounds_that_used_the_last_client"]
    ]
    if any(r["flower_given_updates_of"] != r["aggregator"] for r in results):
        notes.append("*: given the updates of the mean's run, since the run with this aggregator paused")
    return [*notes, "Flower's aggregators were given the updates that ours were sent, not runs of their own."]


def draw(path: Path, figures: Figures) -> None:
    """Grouped bars by attack: ours filled, Flower's hatched beside it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rules, attacks = _distinct(figures, "aggregator"), _distinct(figures, "attack")
    cells = {(result["attack"], result["aggregator"]): result for result in figures["results"]}
    figure, axes = plt.subplots(figsize=(max(6.0, 1.7 * len(attacks) + 2), 4.8), dpi=120, layout="constrained")
    width = 0.86 / (2 * len(rules))
    for index, rule in enumerate(rules):
        for part, (owner, bar) in enumerate((("", _our_bar), ("Flower's ", _flower_bar))):
            offset = (2 * index + part - len(rules) + 0.5) * width
            bars = [bar(cells[attack, rule]) for attack in attacks]
            axes.bar(
                [place + offset for place in range(len(attacks))],
                [value for value, _ in bars],
                width,
                label=f"{owner}{rule}",
                color="white" if owner else _COLOURS[rule],
                edgecolor=_COLOURS[rule],
                hatch="////" if owner else None,
                linewidth=0.8,
            )
            for place, (value, word) in enumerate(bars):
                axes.text(place + offset, value + 0.01, word, rotation=90, ha="center", va="bottom", fontsize=7)
    axes.axhline(0.1, color="#999999", linewidth=0.8, linestyle=":", label="guessing")
    axes.set_xticks(range(len(attacks)), attacks)
    axes.set(ylim=(0, 1), ylabel="accuracy on public images", title=_short_title(figures))
    axes.grid(axis="y", alpha=0.25)
    figure.legend(loc="outside lower center", ncols=len(rules) * 2 + 1, frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def _our_bar(result: Figures) -> tuple[float, str]:
    return (result["accuracy"] or 0.0, "paused" if result["paused"] else "")


def _flower_bar(result: Figures) -> tuple[float, str]:
    word = _flowers(result)
    failed = word in ("NaN", "crashed")
    return (0.0 if failed else result["flower_accuracy"], word if failed else "*" * word.endswith("*"))


def _short_title(figures: Figures) -> str:
    return (
        f"{figures['clients']} clients, the last of them hostile, {figures['rounds']} rounds, "
        f"epsilon {figures['target_epsilon']:g} per image (attestation SIMULATED)"
    )


def _distinct(figures: Figures, name: str) -> list[str]:
    return list(dict.fromkeys(result[name] for result in figures["results"]))
