"""Each figure of a study is a whole picture, also on odd results, and no legend lies on the curves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from aegis.studies import figures
from aegis.studies.figures import (
    Curve,
    plot_calibration,
    plot_confusion,
    plot_epsilon,
    plot_residuals,
    plot_roc,
    plot_runs,
    plot_survival,
    plot_updates,
    plot_utility,
)

NAN = float("nan")
ROUNDS = [1, 2, 3]
RANDOM = np.random.default_rng(4)
SCORES, LABELS = RANDOM.uniform(0, 1, 40), RANDOM.integers(0, 2, 40)
ZEROS, ONES = np.zeros(40, np.int64), np.ones(40, np.int64)

Plot = Callable[[Path], None]


def utility(metric: str, values: list[float], **options: object) -> Plot:
    rounds = list(range(1, len(values) + 1))
    return lambda path: plot_utility(path, metric, Curve("private", rounds, values), title=TITLE, **options)  # type: ignore[arg-type]


TITLE = "a study with a name as long as may be, run 12: epsilon 3 at delta 1e-05 per person (attestation SIMULATED)\nx"
TWIN = Curve("without privacy, a label as long as a study's owner may write it", ROUNDS, [0.6, 0.7, 0.8])
BAND = Curve("private", ROUNDS, [0.5, 0.6, 0.7], low=[0.4, 0.5, 0.6], high=[0.6, 0.7, 0.8])
MANY = [Curve(f"hospital-{number}", ROUNDS, [float(number), 1.0, 2.0]) for number in range(12)]
WITH_LEGEND: dict[str, Plot] = {
    "utility": utility("auc", [0.5, 0.6, 0.7], twin=TWIN, references={"published": 0.8}),
    "utility below chance": utility("auc", [0.1, 0.2, 0.3]),
    "utility with a band": lambda path: plot_utility(path, "accuracy", BAND, title=TITLE),
    "utility without bounds": utility("deviance", [100.0, 1e6, 3.0]),
    "utility with a gap": utility("auc", [0.5, NAN, 0.7]),
    "utility without a value": utility("r2", [NAN, NAN]),
    "utility of a thousand rounds": utility("loss", [1.0] * 1000),
    "epsilon": lambda path: plot_epsilon(
        path, [Curve("a", ROUNDS, [1, 2, 3]), Curve("b", ROUNDS, [1, 2, 3])], 3, title=TITLE
    ),
    "epsilon of one round": lambda path: plot_epsilon(path, [Curve("a", [1], [0.5])], 3, title=TITLE),
    "epsilon of many sites": lambda path: plot_epsilon(path, MANY, 30, title=TITLE),
    "updates": lambda path: plot_updates(path, MANY, [(2, "hospital-3")], title=TITLE, limit=5.0),
    "updates of one round": lambda path: plot_updates(path, [Curve("a", [1], [2.0])], [], title=TITLE),
    "updates of an absent site": lambda path: plot_updates(
        path, [Curve("a", ROUNDS, [NAN, 1.0, NAN]), Curve("b", ROUNDS, [NAN] * 3)], [(1, "a")], title=TITLE
    ),
    "two runs": lambda path: plot_runs(
        path, "auc", [Curve("run 1", ROUNDS, [0.6, NAN, 0.8]), Curve("run 2", [1], [0.7])], title=TITLE
    ),
    "ROC": lambda path: plot_roc(path, SCORES, LABELS, title=TITLE, area="AUC 0.5"),
    "ROC of one class": lambda path: plot_roc(path, SCORES, ONES, title=TITLE, area="no AUC"),
    "ROC of no positives": lambda path: plot_roc(path, SCORES, ZEROS, title=TITLE, area="no AUC"),
    "ROC of equal scores": lambda path: plot_roc(path, np.full(40, 0.3), LABELS, title=TITLE, area="AUC 0.5"),
    "ROC of one row": lambda path: plot_roc(path, SCORES[:1], LABELS[:1], title=TITLE, area="no AUC"),
    "calibration": lambda path: plot_calibration(path, SCORES, LABELS == 1, title=TITLE),
    "calibration of fewer rows than groups": lambda path: plot_calibration(
        path, SCORES[:3], LABELS[:3] == 1, title=TITLE
    ),
    "calibration of equal chances": lambda path: plot_calibration(path, np.full(40, 0.5), LABELS == 1, title=TITLE),
    "survival": lambda path: plot_survival(path, [0.9, 0.8], [0.95, 0.7], [30, 90], title=TITLE),
    "survival over one interval": lambda path: plot_survival(path, [0.9], [1.0], [30], title=TITLE),
    "survival that nobody is seen through": lambda path: plot_survival(
        path, [0.9, 0.8], [0.9, NAN], [30, 90], title=TITLE
    ),
}
WITHOUT_LEGEND: dict[str, Plot] = {
    "utility of one round, as a table": utility("auc", [0.5], references={"published": 0.8}),
    "utility of one round without a value": utility("auc", [NAN]),
    "confusion": lambda path: plot_confusion(path, ZEROS, LABELS, ["no", "yes"], title=TITLE),
    "confusion of one class": lambda path: plot_confusion(path, ONES, ONES, ["no", "yes"], title=TITLE),
    "confusion of ten classes": lambda path: plot_confusion(
        path, RANDOM.integers(0, 10, 40), RANDOM.integers(0, 10, 40), [f"class {n}" for n in range(10)], title=TITLE
    ),
    "residuals": lambda path: plot_residuals(path, SCORES, LABELS.astype(float), title=TITLE, unit="mmHg"),
    "residuals of a constant prediction": lambda path: plot_residuals(path, np.ones(40), SCORES, title=TITLE),
}


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    kept: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: object, **options: object) -> None:
        save(self, *args, **options)  # type: ignore[arg-type]
        kept.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def draw(plot: Plot, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot(path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        assert min(picture.size) > 400
        low, high = picture.convert("L").getextrema()
        assert (low, high) != (255, 255)  # not blank


@pytest.mark.parametrize("name", WITH_LEGEND)
def test_a_legend_lies_beside_the_axes_and_inside_the_picture(tmp_path: Path, drawn: list[Figure], name: str) -> None:
    draw(WITH_LEGEND[name], tmp_path / "figure.png")
    (figure,) = drawn
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    box, plotted, whole = legend.get_window_extent(), axes.get_window_extent(), figure.bbox
    assert box.x0 >= plotted.x1
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1 + 1
    assert plotted.width > 0.3 * whole.width
    (title,) = [text for text in figure.texts if text.get_text()]
    titled = title.get_window_extent()
    assert whole.x0 <= titled.x0 < titled.x1 <= whole.x1
    assert plotted.y1 <= titled.y0 < titled.y1 <= whole.y1 + 1


@pytest.mark.parametrize("name", WITHOUT_LEGEND)
def test_a_figure_without_curves_has_no_legend(tmp_path: Path, drawn: list[Figure], name: str) -> None:
    draw(WITHOUT_LEGEND[name], tmp_path / "figure.png")
    assert all(axes.get_legend() is None for axes in drawn[0].axes)


def test_every_figure_of_the_module_is_tried() -> None:
    plots = {name for name in vars(figures) if name.startswith("plot_")}
    source = Path(__file__).read_text(encoding="utf-8")
    assert {name for name in plots if f"{name}(" not in source} == set()


def test_measures_with_bounds_keep_their_axis_in_every_run(tmp_path: Path, drawn: list[Figure]) -> None:
    for values in ([0.1, 0.2], [0.7, 0.71]):
        draw(utility("auc", values), tmp_path / "figure.png")
    assert [figure.axes[0].get_ylim() for figure in drawn] == [(0.0, 1.0)] * 2


def test_the_area_below_the_drawn_curve_is_the_area_under_the_curve(tmp_path: Path, drawn: list[Figure]) -> None:
    from aegis.evaluation import area_under_curve

    scores = np.round(SCORES, 1)  # ties
    draw(lambda path: plot_roc(path, scores, LABELS, title=TITLE, area="AUC"), tmp_path / "figure.png")
    x, y = drawn[0].axes[0].lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(area_under_curve(scores, LABELS))
