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
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aegis.demo.families import families_of, split_families
from aegis.demo.randhie_columns import DATASET_ID, LABEL, PERSON, ROWS_FILE, Rows, derive, schema_for
from aegis.federation import EvaluationSet
from aegis.studies import DATASET_COMMENTS, commented
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import PrivacyUnit, Task
from coreason_enclave.system import replace_file

if TYPE_CHECKING:
    from aegis.studies import Interval

STATSMODELS_VERSION = "0.15.0"
"""The first release whose wheel carries the file with all columns, ``site`` and ``zper`` among them."""

SOURCE_PATH = Path("datasets", "randhie", "src", "randhie.csv")
SOURCE_SHA256 = "fe64f3c8e987779daa6052dd756d9ce277e025330f5549126c7c2f6a3c9c5541"

NOMINAL_PERSONS = (850, 900, 550, 700, 600, 800)
"""Three quarters of each site's published enrolment (1164, 1232, 735, 905, 786, 1090), rounded to fifty."""

NOMINAL_RECORDS = (3350, 3050, 1850, 2300, 1950, 2700)
"""Three quarters of each site's published person-years (4462, 4036, 2436, 3090, 2595, 3571), rounded to fifty."""

NUM_SITES = len(NOMINAL_PERSONS)

CENTRAL_LOGISTIC = "central logistic regression, no privacy"
CENTRAL_TREES = "central boosted trees, no privacy"


@dataclass(frozen=True)
class PreparedSite:
    """A site's folder, ready for registration. ``nominal_units`` is declared and public, not counted."""

    site_id: str
    data_root: Path
    dataset_id: str
    nominal_units: int


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


def prepare_held_out(root: Path, unit: PrivacyUnit = PrivacyUnit.PERSON) -> None:
    """Write the public evaluation set's rows, declaration and families below ``root``, a folder of datasets.

    Raises:
        ConfigurationError: the data is missing or has a wrong hash.
    """
    from aegis.studies import write_groups

    source = _load_source()
    _, evaluation = split_families(source, source[PERSON])
    rows = _select(source, evaluation)
    _write_dataset(root, unit, rows)
    write_groups(root, families_of(rows).tolist())


def central_references(unit: PrivacyUnit = PrivacyUnit.PERSON) -> dict[str, dict[str, Interval]]:
    """Fit models without privacy on all six sites' rows in one place; return their measures on the evaluation set.

    The intervals are 95 % by bootstrap over families. Takes a few seconds.

    Raises:
        ConfigurationError: the data is missing or has a wrong hash.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    from aegis.studies import measured

    source = _load_source()
    training, evaluation = split_families(source, source[PERSON])
    train, test = (_scaled(_select(source, rows), unit) for rows in (training, evaluation))
    families = families_of(_select(source, evaluation))

    def of(model: LogisticRegression | HistGradientBoostingClassifier) -> dict[str, Interval]:
        chances = model.fit(train.features, train.labels).predict_proba(test.features).astype(np.float64)
        return measured(chances, test.labels, Task.BINARY, families)

    return {
        CENTRAL_LOGISTIC: of(LogisticRegression(C=1000.0, max_iter=2000)),
        CENTRAL_TREES: of(HistGradientBoostingClassifier(learning_rate=0.05, random_state=0)),
    }


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
    site_id = f"site-{number}"
    data_root = root / site_id / "data"
    _write_dataset(data_root, unit, source)
    nominal = NOMINAL_PERSONS if unit is PrivacyUnit.PERSON else NOMINAL_RECORDS
    return PreparedSite(site_id, data_root, DATASET_ID, nominal[number - 1])


def _write_dataset(data_root: Path, unit: PrivacyUnit, source: Rows) -> None:
    schema, folder = schema_for(unit), data_root.joinpath(*DATASET_ID.split("/"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: values for name, values in derive(source).items() if name in schema.reads}
    replace_file(folder / ROWS_FILE, _csv(rows).encode())
    declared = commented(schema.model_dump(mode="json", exclude_none=True), DATASET_COMMENTS)
    replace_file(folder / "dataset.toml", declared.encode())


def _csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows)
    writer.writerows([_cell(value) for value in line] for line in zip(*rows.values(), strict=True))
    return text.getvalue()


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"
