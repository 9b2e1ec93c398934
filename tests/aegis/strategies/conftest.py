"""Sites whose rows a test knows to the last digit, trained on without privacy, all rows in every step.

Their rows are public records and their gradients the plain ones, so that a few lines of NumPy say what a whole
federation of them has to come to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.conftest import DATASET, FEATURES
from tests.support.studies import Study

Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
Federation = Any

EVERYTHING = ["FED_AVG", "FED_PROX", "SCAFFOLD"]
IN_THE_OPEN = {
    "mechanism": "NON_PRIVATE",
    **dict.fromkeys(("target_epsilon", "noise_multiplier", "max_grad_norm")),
    "sample_rate": 1.0,
    "unit": "record",
}


def write(folder: Path, rows: Rows) -> None:
    """Replace a site's rows by these: three features within [-1, 1], one label."""
    features, labels = rows
    where = folder / "data" / DATASET
    lines = [",".join((*FEATURES, "visited"))]
    lines += [",".join([*(repr(float(v)) for v in x), str(y)]) for x, y in zip(features, labels, strict=True)]
    (where / "rows.csv").write_text("\n".join(lines) + "\n")
    columns = "".join(f'[[features]]\nname = "{name}"\nlow = -1.0\nhigh = 1.0\n' for name in FEATURES)
    (where / "dataset.toml").write_text(
        f'version = 1\ndataset_id = "{DATASET}"\nformat = "csv"\nfile = "rows.csv"\npublic = true\n'
        f'[label]\ncolumn = "visited"\nclasses = 2\n{columns}'
    )


@pytest.fixture
def known(federation: Federation, tmp_path: Path) -> Callable[[Sequence[Rows]], Study]:
    """A study over sites with these rows."""

    def make(shares: Sequence[Rows]) -> Study:
        sites = []
        for number, rows in enumerate(shares, start=1):
            lineage = {"unit": "record", "nominal_units": len(rows[1])}
            policy = {"strategies": EVERYTHING}
            site = federation.create(f"clinic-{number}", rows=number, lineage=lineage, policy=policy)
            write(site.folder, rows)
            sites.append(site)
        return Study(federation, tmp_path / "run", sites)

    return make


@pytest.fixture
def plain_job(federation: Federation) -> Callable[..., Any]:
    """A job without privacy and with momentum 0."""

    def make(**changes: Any) -> Any:
        return federation.job(**{"privacy": IN_THE_OPEN, "momentum": 0.0, **changes})

    return make
