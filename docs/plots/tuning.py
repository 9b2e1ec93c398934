"""The pictures of docs/TUNING.md, measured on public data: ``python -m docs.plots.tuning``, two minutes on one core.

Every training is private, seeded and repeated; a point is the median over the repetitions, a band their range. The same
machine draws the same pictures. The figures that the page quotes are written to standard output.
"""

from __future__ import annotations

import io
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

from aegis.privacy_engine import DifferentialPrivacyEngine, EngineConfig, Task
from aegis.tuning import calibrated
from coreason_enclave.accounting import Accountant
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit

HERE = Path(__file__).parent
DELTA = 1e-4
REPETITIONS = 3
COLOURS = ("#0b5394", "#c55a11", "#38761d", "#8e44ad")

Trainer = Callable[[bytes], float]


@dataclass(frozen=True)
class Measured:
    """Accuracies of the repetitions at one setting."""

    low: float
    median: float
    high: float


def configuration(**changes: Any) -> EngineConfig:
    """The recipe that the page starts from: a fifth of the units a step, 60 steps."""
    start: dict[str, Any] = {
        "max_grad_norm": 1.0,
        "noise_multiplier": None,
        "sample_rate": 0.2,
        "steps": 60,
        "delta": DELTA,
        "unit": PrivacyUnit.RECORD,
        "neighboring_relation": NeighboringRelation.ADD_OR_REMOVE_ONE,
        "accountant": Accountant.PLD,
    }
    return EngineConfig(**{**start, **changes})


def split(features: torch.Tensor, labels: torch.Tensor, training_rows: int) -> dict[str, Any]:
    """The same shuffle each time; what is not trained on is the public evaluation set."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    features, labels = features[order], labels[order]
    return {
        "features": features[:training_rows],
        "labels": labels[:training_rows],
        "public_features": features[training_rows:],
        "public_labels": labels[training_rows:],
        "nominal_units": training_rows,
        "data_is_public": True,
    }


@cache
def digits() -> Task:
    """1437 handwritten digits to train on, 360 aside; pixels by their declared range of 0 to 16."""
    pixels, labels = load_digits(return_X_y=True)
    rows = split(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels), 1437)
    return Task(
        make_model=lambda: torch.nn.Linear(64, 10),
        loss=torch.nn.functional.cross_entropy,
        learning_rate=2.0,
        **rows,
    )


@cache
def breast_cancer() -> Task:
    """426 tumours to train on, 143 aside; features by public ranges, rounded up from the dataset's published maxima."""
    values, labels = load_breast_cancer(return_X_y=True)
    published = np.array(
        (
            (30, 40, 200, 2600, 0.2, 0.4, 0.5, 0.25, 0.4, 0.1),  # means
            (3, 5, 25, 550, 0.04, 0.15, 0.4, 0.06, 0.08, 0.03),  # standard errors
            (40, 50, 260, 4300, 0.25, 1.1, 1.3, 0.3, 0.7, 0.25),  # largest
        )
    ).ravel()
    rows = split(torch.tensor(values / published * 2 - 0.5, dtype=torch.float32), torch.tensor(labels), 426)
    return Task(
        make_model=lambda: torch.nn.Linear(30, 2), loss=torch.nn.functional.cross_entropy, learning_rate=2.0, **rows
    )


def seed(number: int) -> bytes:
    """The key of one repetition."""
    return number.to_bytes(32, "big")


def measure(train: Trainer, repetitions: int = REPETITIONS) -> Measured:
    """Median and range over the repetitions."""
    found = sorted(train(seed(number)) for number in range(repetitions))
    return Measured(found[0], statistics.median(found), found[-1])


def accuracy(task: Task, config: EngineConfig, epsilon: float, repetitions: int = REPETITIONS) -> Measured:
    """Trained with the noise that ``epsilon`` needs over the whole schedule."""
    engine = DifferentialPrivacyEngine(calibrated(config, epsilon), task)
    return measure(lambda key: engine.train(unsafe_seed=key).accuracy, repetitions)


def without_privacy(task: Task) -> float:
    """The same model by full gradient descent to convergence, neither clipped nor noised."""
    model = task.initial_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(1000):
        optimizer.zero_grad()
        task.loss(model(task.features), task.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return task.accuracy(model)


def draw(axes: Axes, x: Sequence[float], points: Sequence[Measured], label: str, colour: str) -> None:
    """A line of medians in a band of ranges, and the figures for the page."""
    axes.plot(x, [point.median for point in points], "o-", color=colour, label=label, markersize=4)
    axes.fill_between(x, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.18, linewidth=0)
    figures = ", ".join(f"{at:.4g}: {point.median:.3f}" for at, point in zip(x, points, strict=True))
    sys.stdout.write(f"  {label}: {figures}\n")


def picture(name: str, title: str, x: str, y: str = "held-out accuracy") -> tuple[Any, Axes]:
    """An empty picture with its labels."""
    sys.stdout.write(f"{name}\n")
    figure, axes = plt.subplots(figsize=(8.4, 3.6), layout="constrained")
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    if y == "held-out accuracy":
        axes.set_ylim(0, 1)
        axes.axhline(0.1, color="0.5", linewidth=0.8, label="chance, digits")
    return figure, axes


def save(figure: Any, axes: Axes, name: str, ticks: Iterable[float] = ()) -> None:
    """Write the picture; ``ticks`` are labelled as plain numbers on a logarithmic axis."""
    if ticks:
        axes.set_xscale("log")
        axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(HERE / f"{name}.png", optimize=True)


def epsilon() -> None:
    """What each epsilon buys."""
    figure, axes = picture("epsilon", "Accuracy saturates: find the knee before you pay for more", "epsilon")
    epsilons = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 8.0)
    for (name, task), colour in zip(
        {"digits": digits(), "breast cancer": breast_cancer()}.items(), COLOURS, strict=False
    ):
        points = [accuracy(task, configuration(), at) for at in epsilons]
        draw(axes, epsilons, points, f"{name}, {task.nominal_units} records", colour)
        ceiling = without_privacy(task)
        axes.axhline(ceiling, color=colour, linestyle=":", linewidth=1)
        sys.stdout.write(f"  {name} without privacy: {ceiling:.3f}\n")
    axes.plot([], [], "k:", linewidth=1, label="without privacy")
    save(figure, axes, "epsilon", epsilons)


def clipping() -> None:
    """A small norm with a large learning rate; what matters is their product."""
    figure, axes = picture(
        "clipping", "Clip low and keep learning rate × norm: noise grows with the norm", "clipping norm C"
    )
    norms = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    for (label, rate), colour in zip(
        {"learning rate 2 / C": lambda norm: 2 / norm, "learning rate 2": lambda norm: 2.0}.items(),
        COLOURS,
        strict=False,
    ):
        points = [
            accuracy(replace(digits(), learning_rate=rate(norm)), configuration(max_grad_norm=norm), 1.0)  # type: ignore[no-untyped-call]
            for norm in norms
        ]
        draw(axes, norms, points, label, colour)
    save(figure, axes, "clipping", norms)


def rate() -> None:
    """Larger batches: at the same epsilon and steps the noise in the mean falls."""
    figure, axes = picture("rate", "Larger batches at the same epsilon and the same steps", "sample rate q")
    rates = (0.01, 0.03, 0.1, 0.3, 1.0)
    configs = [configuration(sample_rate=rate) for rate in rates]
    for at, colour in zip((0.3, 1.0), COLOURS, strict=False):
        draw(axes, rates, [accuracy(digits(), config, at) for config in configs], f"epsilon {at:g}", colour)
    noise = [calibrated(config, 1.0).event(1).noise_multiplier / config.sample_rate / 1437 for config in configs]
    sys.stdout.write(f"  noise in the mean at epsilon 1, in units of C: {', '.join(f'{n:.4f}' for n in noise)}\n")
    save(figure, axes, "rate", rates)


def steps() -> None:
    """More steps need more noise in each: a small budget wants few."""
    figure, axes = picture(
        "steps", "A small budget wants few steps, a large one affords more", "steps at the same epsilon"
    )
    counts = (5, 15, 50, 150, 450)
    for at, colour in zip((0.2, 1.0, 8.0), COLOURS, strict=False):
        points = [accuracy(digits(), configuration(steps=count), at) for count in counts]
        draw(axes, counts, points, f"epsilon {at:g}", colour)
    save(figure, axes, "steps", counts)


def averaging() -> None:
    """Averaging the last weights is free; momentum is a larger learning rate."""
    figure, axes = picture(
        "averaging",
        "Averaging the last weights is free, and forgives a large learning rate",
        "effective learning rate, lr / (1 - momentum)",
    )
    rates = (0.5, 1.0, 2.0, 4.0, 8.0)
    recipes: Mapping[str, dict[str, Any]] = {
        "last weights": {},
        "mean of the last 30 of 60 steps": {"average_last": 30},
        "momentum 0.9": {"momentum": 0.9},
        "momentum 0.9 and the mean": {"momentum": 0.9, "average_last": 30},
    }
    for (label, recipe), colour in zip(recipes.items(), COLOURS, strict=True):
        tasks = [replace(digits(), learning_rate=at * (1 - recipe.get("momentum", 0)), **recipe) for at in rates]
        points = [accuracy(task, configuration(), 0.3, repetitions=7) for task in tasks]
        draw(axes, rates, points, label, colour)
    save(figure, axes, "averaging", rates)


def unit() -> None:
    """Protecting persons with several rows each: fewer units share the same noise."""
    figure, axes = picture("unit", "Protecting persons: the same 1437 rows are fewer units", "rows of a person")
    per_person = (1, 2, 4, 8, 16)
    for at, colour in zip((0.5, 2.0), COLOURS, strict=False):
        points = [accuracy(*by_person(rows), at) for rows in per_person]
        draw(axes, per_person, points, f"epsilon {at:g} per person", colour)
    save(figure, axes, "unit", per_person)


def by_person(rows: int) -> tuple[Task, EngineConfig]:
    """The digits, every ``rows`` of them written by one person."""
    persons = np.arange(1437) // rows
    task = replace(digits(), unit_ids=persons, nominal_units=int(persons.max()) + 1)
    return task, configuration(unit=PrivacyUnit.PERSON)


def rounds() -> None:
    """The account counts steps; how they are cut into rounds is a question of traffic and drift."""
    figure, axes = picture("rounds", "60 steps cost the same in 2 rounds or 60", "rounds of 60 / rounds local steps")
    cuts = (2, 6, 20, 60)
    for skewed, colour in zip((False, True), COLOURS, strict=False):
        label = "each site holds some digits only" if skewed else "sites alike"
        points = [measure(lambda key, cut=cut, skewed=skewed: federated(cut, skewed, key)) for cut in cuts]  # type: ignore[misc]
        draw(axes, cuts, points, f"four sites, epsilon 2, {label}", colour)
    save(figure, axes, "rounds", cuts)


def federated(rounds: int, skewed: bool, key: bytes) -> float:
    """Federated averaging over four sites, 60 private steps at each, in so many rounds."""
    whole = digits()
    order = torch.argsort(whole.labels, stable=True) if skewed else torch.arange(1437)
    sites = torch.split(order, 360)
    config = calibrated(configuration(), 2.0).changed(steps=60 // rounds)
    weights = torch.nn.utils.parameters_to_vector(whole.initial_model().parameters()).detach()
    for number in range(rounds):
        trained = [site_round(weights, rows, config, key, number, site) for site, rows in enumerate(sites)]
        weights = torch.stack(trained).mean(dim=0)
    return whole.accuracy(model_with(weights))


def site_round(
    weights: torch.Tensor, rows: torch.Tensor, config: EngineConfig, key: bytes, number: int, site: int
) -> torch.Tensor:
    """One site's local steps from the global weights."""
    whole = digits()
    task = replace(
        whole,
        make_model=lambda: model_with(weights),
        features=whole.features[rows],
        labels=whole.labels[rows],
        nominal_units=len(rows),
    )
    own_key = bytes([number, site]) + key[2:]
    model = DifferentialPrivacyEngine(config, task).train(unsafe_seed=own_key).model
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def model_with(weights: torch.Tensor) -> torch.nn.Module:
    """A new linear model that holds ``weights``."""
    model = torch.nn.Linear(64, 10)
    torch.nn.utils.vector_to_parameters(weights.clone(), model.parameters())
    return model


def accountants() -> None:
    """The same run by four accountants."""
    figure, axes = picture("accountants", "The same steps by four accountants (noise 1, rate 0.05)", "steps", "epsilon")
    engine = DifferentialPrivacyEngine(configuration(noise_multiplier=1.0, sample_rate=0.05, delta=1e-5, steps=1000))
    at = (10, 30, 68, 100, 200, 300, 400, 500)
    opacus = {name: [engine.compared(name, step).epsilon for step in at] for name in ("prv", "gdp")}
    lines = {
        "PLD: tight, reported": [point.epsilon for point in engine.trajectory(at)],
        "RDP: the moments accountant's modern form": [
            point.epsilon for point in engine.trajectory(at, accountant=Accountant.RDP)
        ],
        "Opacus PRV: agrees with PLD": opacus["prv"],
        "Opacus GDP: below the truth, backs no claim": opacus["gdp"],
    }
    for (label, values), colour, style in zip(lines.items(), COLOURS, ("-", "-", "--", ":"), strict=True):
        axes.plot(at, values, style, color=colour, label=label)
        sys.stdout.write(f"  {label}: {', '.join(f'{s}: {v:.2f}' for s, v in zip(at, values, strict=True))}\n")
    save(figure, axes, "accountants")


def delta() -> None:
    """A stricter delta is cheap."""
    figure, axes = picture(
        "delta", "A delta ten times stricter costs little epsilon (rate 0.2, 60 steps)", "delta", "epsilon"
    )
    deltas = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
    for noise, colour in zip((1.5, 3.0, 6.0), COLOURS, strict=False):
        engines = [DifferentialPrivacyEngine(configuration(noise_multiplier=noise, delta=at)) for at in deltas]
        values = [engine.stepwise_accounting(60).epsilon for engine in engines]
        axes.plot(deltas, values, "o-", color=colour, markersize=4, label=f"noise multiplier {noise:g}")
        sys.stdout.write(f"  {noise:g}: {', '.join(f'{a:g}: {v:.2f}' for a, v in zip(deltas, values, strict=True))}\n")
    axes.axvline(1 / 1437, color="0.5", linewidth=1, linestyle=":", label="1 / units: a promise must lie left of it")
    axes.set_ylim(bottom=0)
    save(figure, axes, "delta", deltas)


PICTURES = (epsilon, clipping, rate, steps, averaging, unit, rounds, accountants, delta)


def main(names: Sequence[str]) -> None:
    """Draw the pictures that are named, or all."""
    torch.set_num_threads(1)
    for draw_one in PICTURES:
        if not names or draw_one.__name__ in names:
            draw_one()


if __name__ == "__main__":
    main(sys.argv[1:])
