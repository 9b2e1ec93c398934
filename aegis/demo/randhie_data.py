"""The RAND Health Insurance Experiment as six sites with private rows and a declared public evaluation set.

The data: 20,190 person-years of 5,912 people at six real sites (1974 to 1982), in the public domain, in the wheel of
statsmodels.

- A quarter of the people, whole families with all their years, forms the public evaluation set.
- The rows of all other people go to the folder of the site where they lived. No family appears in both parts.
- One declaration turns both parts into model inputs. A held-out person's history comes from the person's own rows.
- Each site declares a number of persons from the published size of its enrolment, rounded. A privacy guarantee must not
  rest on a count of private rows.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tomli_w

from aegis.demo.families import auc_interval, families_of, split_families
from aegis.demo.randhie_columns import DATASET_ID, LABEL, PERSON, ROWS_FILE, Rows, derive, schema_for
from aegis.evaluation import utility
from aegis.federation import EvaluationSet
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import PrivacyUnit
from coreason_enclave.system import replace_file

STATSMODELS_VERSION = "0.15.0"
"""The first release whose wheel carries the file with all columns, ``site`` and ``zper`` among them."""

SOURCE_PATH = Path("datasets", "randhie", "src", "randhie.csv")
SOURCE_SHA256 = "fe64f3c8e987779daa6052dd756d9ce277e025330f5549126c7c2f6a3c9c5541"

NOMINAL_PERSONS = (850, 900, 550, 700, 600, 800)
"""Three quarters of each site's published enrolment (1164, 1232, 735, 905, 786, 1090), rounded to fifty."""

NOMINAL_RECORDS = (3350, 3050, 1850, 2300, 1950, 2700)
"""Three quarters of each site's published person-years (4462, 4036, 2436, 3090, 2595, 3571), rounded to fifty."""

NUM_SITES = len(NOMINAL_PERSONS)


@dataclass(frozen=True)
class PreparedSite:
    """A site's folder, ready for registration. ``nominal_units`` is declared and public, not counted."""

    site_id: str
    data_root: Path
    dataset_id: str
    nominal_units: int


@dataclass(frozen=True)
class CentralReference:
    """AUC of non-private models trained on all six sites' rows in one place, on the public evaluation set.

    The intervals are 95 % by bootstrap over families.
    """

    logistic_auc: float
    boosted_trees_auc: float
    logistic_interval: tuple[float, float]
    boosted_trees_interval: tuple[float, float]


def prepare_sites(
    root: Path, *, sites: int = NUM_SITES, unit: PrivacyUnit = PrivacyUnit.PERSON
) -> tuple[PreparedSite, ...]:
    """Write ``rows.csv`` and ``dataset.toml`` below ``root/<site id>/data`` for the first ``sites`` sites.

    Deterministic: the same call writes the same bytes. Writes each file atomically, so callers can repeat an
    interrupted call.

    Raises:
        ConfigurationError: ``sites`` is not 1 to 6, or the data is missing or has a wrong hash.
    """
    if not 1 <= sites <= NUM_SITES:
        raise ConfigurationError(f"sites must be 1 to {NUM_SITES}, the experiment's real sites, got {sites}")
    source = _load_source()
    training, _ = split_families(source, source[PERSON])
    private = _select(source, training)
    return tuple(
        _prepare_site(root, number, unit, _select(private, np.flatnonzero(private["site"] == number)))
        for number in range(1, sites + 1)
    )


def load_evaluation_set(unit: PrivacyUnit = PrivacyUnit.PERSON) -> EvaluationSet:
    """Return the public evaluation set: a quarter of all people, whole families from all six sites.

    Raises:
        ConfigurationError: the data is missing or has a wrong hash.
    """
    source = _load_source()
    _, evaluation = split_families(source, source[PERSON])
    return _scaled(_select(source, evaluation), unit)


def evaluation_families() -> npt.NDArray[np.int64]:
    """Return the code of the family behind each row of the public evaluation set, (n,)."""
    source = _load_source()
    _, evaluation = split_families(source, source[PERSON])
    return families_of(_select(source, evaluation))


def central_reference(unit: PrivacyUnit = PrivacyUnit.PERSON) -> CentralReference:
    """Fit the non-private references on all training rows together and measure them; takes a few seconds.

    Raises:
        ConfigurationError: the data is missing or has a wrong hash.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    source = _load_source()
    training, evaluation = split_families(source, source[PERSON])
    train, test = (_scaled(_select(source, rows), unit) for rows in (training, evaluation))
    families = families_of(_select(source, evaluation))

    def measured(model: LogisticRegression | HistGradientBoostingClassifier) -> tuple[float, tuple[float, float]]:
        chances = model.fit(train.features, train.labels).predict_proba(test.features).astype(np.float64)
        return utility(chances, test.labels)["auc"], auc_interval(chances[:, 1], test.labels, families)

    logistic, logistic_interval = measured(LogisticRegression(C=1000.0, max_iter=2000))
    trees, trees_interval = measured(HistGradientBoostingClassifier(learning_rate=0.05, random_state=0))
    return CentralReference(logistic, trees, logistic_interval, trees_interval)


def _load_source() -> Rows:
    data = _source_bytes()
    if hashlib.sha256(data).hexdigest() != SOURCE_SHA256:
        raise ConfigurationError(f"{SOURCE_PATH.name} does not have the digest that the demo declares: {_remedy()}")
    header, *lines = csv.reader(io.StringIO(data.decode("ascii")))
    cells = np.array([[float(cell) if cell else np.nan for cell in line] for line in lines])
    return dict(zip(header, cells.T, strict=True))


def _select(rows: Rows, positions: npt.NDArray[np.int64]) -> Rows:
    return {name: values[positions] for name, values in rows.items()}


def _source_bytes() -> bytes:
    spec = util.find_spec("statsmodels")
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"the demo's data comes with statsmodels, which is not installed: {_remedy()}")
    path = Path(spec.origin).parent / SOURCE_PATH
    try:
        return path.read_bytes()
    except OSError as error:
        installed = metadata.version("statsmodels")
        raise ConfigurationError(
            f"statsmodels {installed} does not contain {SOURCE_PATH.as_posix()} ({error.strerror}): {_remedy()}"
        ) from error


def _remedy() -> str:
    return f"install statsmodels=={STATSMODELS_VERSION}, for example with: pip install 'aegis-fl[demo]'"


def _scaled(source: Rows, unit: PrivacyUnit) -> EvaluationSet:
    rows = derive(source)
    return EvaluationSet(features=schema_for(unit).scale(rows), labels=rows[LABEL].astype(np.int64))


def _prepare_site(root: Path, number: int, unit: PrivacyUnit, source: Rows) -> PreparedSite:
    site_id, schema = f"site-{number}", schema_for(unit)
    data_root = root / site_id / "data"
    folder = data_root.joinpath(*DATASET_ID.split("/"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: values for name, values in derive(source).items() if name in schema.reads}
    replace_file(folder / ROWS_FILE, _csv(rows).encode())
    replace_file(folder / "dataset.toml", tomli_w.dumps(schema.model_dump(mode="json", exclude_none=True)).encode())
    nominal = NOMINAL_PERSONS if unit is PrivacyUnit.PERSON else NOMINAL_RECORDS
    return PreparedSite(site_id, data_root, DATASET_ID, nominal[number - 1])


def _csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows)
    writer.writerows([_cell(value) for value in line] for line in zip(*rows.values(), strict=True))
    return text.getvalue()


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"
