from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import statsmodels

from aegis.demo import randhie_columns
from aegis.demo import randhie_data as randhie
from aegis.demo.families import families_of
from aegis.demo.randhie_columns import (
    COLUMNS,
    HISTORIES,
    LABEL,
    OUTCOME_COLUMNS,
    PERSON,
    SCHEMA,
    VISITS,
    YEAR,
    DerivedColumn,
)
from coreason_enclave.datasets import Feature, open_dataset, parse_schema
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import PrivacyUnit

ENROLLED = {1: 1164, 2: 1232, 3: 735, 4: 905, 5: 786, 6: 1090}
BINARY = {"child", "adult_male", "tookphys", "free_care", "full_price"}
IMPUTED = {"black", "physlm"}


@pytest.fixture(scope="module")
def source() -> pd.DataFrame:
    return pd.read_csv(Path(statsmodels.__path__[0]) / randhie.SOURCE_PATH)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[randhie.PreparedSite, ...]:
    return randhie.prepare_sites(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def evaluation() -> randhie.EvaluationSet:
    return randhie.load_evaluation_set()


def derive(source: pd.DataFrame) -> pd.DataFrame:
    columns = {name: source[name].to_numpy(dtype=float) for name in source.columns}
    return pd.DataFrame(randhie_columns.derive(columns), index=source.index)


def folder_of(site: randhie.PreparedSite) -> Path:
    return site.data_root / "randhie" / "visits"


def rows_of(site: randhie.PreparedSite) -> list[dict[str, str]]:
    with (folder_of(site) / "rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def persons_of(site: randhie.PreparedSite) -> set[int]:
    return {int(row["zper"]) for row in rows_of(site)}


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- who is where --------------------------------------------------------------------------------------


def test_the_source_holds_the_six_real_sites_with_their_published_enrolment(source: pd.DataFrame) -> None:
    assert source.groupby("site")["zper"].nunique().to_dict() == ENROLLED
    assert len(source) == 20_190
    assert sum(ENROLLED.values()) == 5_912


def test_every_person_is_either_at_one_site_or_in_the_public_evaluation_set(
    source: pd.DataFrame,
    prepared: tuple[randhie.PreparedSite, ...],
    evaluation: randhie.EvaluationSet,
) -> None:
    trained_on: set[int] = set()
    for site in prepared:
        assert trained_on.isdisjoint(persons_of(site))
        trained_on |= persons_of(site)
    held_out = source[~source["zper"].isin(trained_on)]
    # Rows of a person who was split would be missing on both sides of this count.
    assert len(held_out) == len(evaluation.labels) == 5_018
    assert sum(len(rows_of(site)) for site in prepared) == 20_190 - 5_018
    assert np.array_equal(evaluation.labels, (held_out["mdvis"] > 0).astype(int).to_numpy())
    assert held_out["zper"].nunique() == pytest.approx(0.25 * 5_912, rel=0.03)


def test_each_site_holds_only_people_enrolled_there(prepared: tuple[randhie.PreparedSite, ...]) -> None:
    assert [site.site_id for site in prepared] == [f"site-{number}" for number in ENROLLED]
    for number, site in enumerate(prepared, start=1):
        assert {person // 100_000 for person in persons_of(site)} == {number}


def test_declared_sizes_are_the_published_enrolment_less_a_quarter_rounded_to_fifty(
    prepared: tuple[randhie.PreparedSite, ...],
) -> None:
    expected = [round(0.75 * enrolled / 50) * 50 for enrolled in ENROLLED.values()]
    assert [site.nominal_units for site in prepared] == expected
    for site in prepared:
        assert site.nominal_units == pytest.approx(len(persons_of(site)), rel=0.05)
        assert site.nominal_units != len(persons_of(site))


def test_no_family_has_people_on_both_sides(source: pd.DataFrame, prepared: tuple[randhie.PreparedSite, ...]) -> None:
    trained_on = set().union(*(persons_of(site) for site in prepared))
    sides = source.assign(trained=source["zper"].isin(trained_on)).groupby(["site", "plan", "income"])["trained"]
    assert sides.nunique().max() == 1
    assert (
        sides.ngroups == len(np.unique(families_of({name: source[name].to_numpy(float) for name in source}))) == 1_806
    )
    for _, people in source.assign(trained=source["zper"].isin(trained_on)).groupby("site"):
        assert people.drop_duplicates("zper")["trained"].mean() == pytest.approx(0.75, abs=0.02)


def test_histories_are_those_of_a_loop_over_earlier_years(
    source: pd.DataFrame, evaluation: randhie.EvaluationSet, prepared: tuple[randhie.PreparedSite, ...]
) -> None:
    trained_on = set().union(*(persons_of(site) for site in prepared))
    held_out = source[~source["zper"].isin(trained_on)].reset_index(drop=True)
    of_person = dict(list(held_out.groupby("zper")))
    for place in range(0, len(held_out), 97):
        row = held_out.loc[place]
        person = of_person[row["zper"]]
        before = person[person["year"] < row["year"]].sort_values("year")
        visits = before["mdvis"].clip(0, 50)
        known = len(before) > 0
        expected = [
            log_unit(visits.iloc[-1] if known else 3, 50),
            log_unit(visits.mean() if known else 3, 50),
            ((visits > 0).mean() if known else 0.5) * 2 - 1,
            len(before) / 4 * 2 - 1,
            log_unit(visits.sum() if known else 3, 200),
        ]
        np.testing.assert_allclose(evaluation.features[place, -5:], expected, atol=1e-6)


def log_unit(value: float, high: float) -> float:
    return float(2 * np.log1p(min(value, high)) / np.log1p(high) - 1)


def test_this_years_visits_reach_no_model_input_of_this_year(source: pd.DataFrame) -> None:
    whole = source.sort_values(["zper", "year"]).groupby("zper").tail(1).index
    other = source.copy()
    other.loc[whole, "mdvis"] = np.where(other.loc[whole, "mdvis"] > 0, 0, 49)
    before, after = (SCHEMA.scale({n: c.to_numpy() for n, c in derive(rows).items()}) for rows in (source, other))
    assert np.array_equal(before, after)
    assert VISITS not in SCHEMA.input_names


# --- what is written -----------------------------------------------------------------------------------


def test_exactly_the_declared_columns_are_written(prepared: tuple[randhie.PreparedSite, ...]) -> None:
    declared = [PERSON, LABEL, *(column.name for column in COLUMNS), VISITS, YEAR]
    for site in prepared:
        assert list(rows_of(site)[0]) == declared
        assert sorted(path.name for path in folder_of(site).iterdir()) == ["dataset.toml", "rows.csv"]


def test_no_feature_changes_when_every_outcome_of_the_year_does(source: pd.DataFrame) -> None:
    other = source.copy()
    generator = np.random.default_rng(7)
    for column in sorted(OUTCOME_COLUMNS):
        other[column] = generator.normal(size=len(other))
    features = [column.name for column in COLUMNS]
    pd.testing.assert_frame_equal(derive(source)[features], derive(other)[features])


def test_a_formula_that_reads_an_outcome_fails_instead_of_leaking(
    source: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak = DerivedColumn(Feature(name="spent", low=0.0, high=1.0), lambda rows: rows["meddol"])
    monkeypatch.setattr(randhie_columns, "COLUMNS", (*COLUMNS, leak))
    with pytest.raises(KeyError, match="meddol"):
        derive(source)


def test_no_feature_repeats_the_label_or_a_spending_column_under_another_name(source: pd.DataFrame) -> None:
    derived = derive(source)
    for column in sorted(OUTCOME_COLUMNS):
        for feature in COLUMNS:
            assert abs(derived[feature.name].corr(source[column])) < 0.5, (feature.name, column)


def test_every_row_is_derived_from_itself_alone(source: pd.DataFrame) -> None:
    whole = derive(source)
    some = source.iloc[[3, 700, 12_000, 20_189]]
    pd.testing.assert_frame_equal(derive(some), whole.loc[some.index])


def test_the_site_scales_its_rows_as_the_platform_scales_the_evaluation_set(
    source: pd.DataFrame, prepared: tuple[randhie.PreparedSite, ...]
) -> None:
    for site in prepared:
        dataset = open_dataset(site.data_root, site.dataset_id)
        private = source[source["zper"].isin(persons_of(site))]
        assert dataset.num_units == private["zper"].nunique()
        assert np.array_equal(dataset.labels, (private["mdvis"] > 0).to_numpy())
        # The platform scales the public evaluation set; the site scales its own rows: one meaning of a range.
        by_the_platform = SCHEMA.scale({name: column.to_numpy() for name, column in derive(private).items()})
        np.testing.assert_allclose(dataset.features, by_the_platform, rtol=0, atol=1e-6)


def test_the_site_reads_dataset_toml_as_the_declared_schema(prepared: tuple[randhie.PreparedSite, ...]) -> None:
    for site in prepared:
        assert parse_schema((folder_of(site) / "dataset.toml").read_bytes()) == SCHEMA
    assert (SCHEMA.unit, SCHEMA.unit_column, SCHEMA.public) == (PrivacyUnit.PERSON, "zper", True)
    assert all(column.feature.why for column in COLUMNS)
    assert all(history.why for history in HISTORIES)


def test_at_record_level_no_column_names_a_person_and_records_are_declared(tmp_path: Path) -> None:
    (site,) = randhie.prepare_sites(tmp_path, sites=1, unit=PrivacyUnit.RECORD)
    assert list(rows_of(site)[0]) == [LABEL, *(column.name for column in COLUMNS)]
    assert randhie.load_evaluation_set(PrivacyUnit.RECORD).features.shape == (5_018, 13)
    assert parse_schema((folder_of(site) / "dataset.toml").read_bytes()).unit is PrivacyUnit.RECORD
    assert site.nominal_units == pytest.approx(len(rows_of(site)), rel=0.05)
    assert open_dataset(site.data_root, site.dataset_id).unit_ids is None


def test_preparing_again_writes_the_same_bytes_and_repairs_an_interrupted_write(tmp_path: Path) -> None:
    randhie.prepare_sites(tmp_path / "one", sites=2)
    before = tree(tmp_path / "one")
    (tmp_path / "one/site-1/data/randhie/visits/rows.csv").write_bytes(b"zper,vis")
    randhie.prepare_sites(tmp_path / "one", sites=2)
    randhie.prepare_sites(tmp_path / "two", sites=2)
    assert tree(tmp_path / "one") == before == tree(tmp_path / "two")
    assert set(before) == {
        f"site-{number}/data/randhie/visits/{name}" for number in (1, 2) for name in ("rows.csv", "dataset.toml")
    }


def test_fewer_sites_change_neither_the_split_nor_the_others_rows(
    tmp_path: Path, prepared: tuple[randhie.PreparedSite, ...]
) -> None:
    (alone,) = randhie.prepare_sites(tmp_path, sites=1)
    assert tree(alone.data_root) == tree(prepared[0].data_root)


@pytest.mark.parametrize("sites", [0, -1, 7])
def test_a_number_of_sites_that_the_experiment_does_not_have_is_refused(tmp_path: Path, sites: int) -> None:
    with pytest.raises(ConfigurationError, match=f"sites must be 1 to 6.*got {sites}"):
        randhie.prepare_sites(tmp_path, sites=sites)
    assert list(tmp_path.iterdir()) == []


# --- declared ranges -----------------------------------------------------------------------------------

DECLARED = {
    "years_under_6": (-6.0, 6.0),
    "years_over_40": (-25.0, 25.0),
    "child": (-1.0, 1.0),
    "adult_male": (-1.0, 1.0),
    "black": (-0.5, 1.5),
    "income": (0.0, 25_000.0),
    "educdec": (6.0, 18.0),
    "disea_sqrt": (0.0, 8.0),
    "physlm": (-1.0, 1.0),
    "tookphys": (-1.0, 1.0),
    "free_care": (-0.5, 1.5),
    "full_price": (-1.0, 1.0),
    "pioff": (0.0, 1000.0),
}


def test_declared_ranges_are_constants() -> None:
    assert {column.name: (column.feature.low, column.feature.high) for column in COLUMNS} == DECLARED


def test_declared_ranges_hold_nearly_all_rows_and_are_not_their_minimum_and_maximum(
    source: pd.DataFrame,
) -> None:
    derived = derive(source)
    for feature in SCHEMA.features[: len(COLUMNS)]:
        values = derived[feature.name].dropna()
        assert values.between(feature.low, feature.high).mean() > 0.96, feature.name
        ends = (values.min(), values.max())
        assert ends != (feature.low, feature.high), feature.name


def test_indicators_are_yes_or_no_and_two_columns_have_a_declared_stand_in(source: pd.DataFrame) -> None:
    derived = derive(source)
    for name in BINARY:
        assert set(derived[name].unique()) == {0, 1}, name
    for name in IMPUTED:
        assert derived[name].between(0, 1).all(), name
        assert derived[name].isin([0, 1]).mean() > 0.9, name
    stand_ins = {f.name: f.missing for f in SCHEMA.features if f.missing != "refuse"}
    assert stand_ins == {"educdec": 12.0, "pioff": 500.0}
    assert set(derived.columns[derived.isna().any()]) == set(stand_ins)


def test_free_care_and_full_price_are_the_randomised_plans_they_name(source: pd.DataFrame) -> None:
    derived = derive(source)
    assert set(source.loc[derived["free_care"] == 1, "plan"]) == {11}
    assert set(source.loc[derived["full_price"] == 1, "plan"]) == {2, 3, 4, 14, 15, 16}


# --- evaluation and reference --------------------------------------------------------------------------


def test_the_evaluation_set_is_scaled_like_the_sites_rows(
    source: pd.DataFrame,
    evaluation: randhie.EvaluationSet,
    prepared: tuple[randhie.PreparedSite, ...],
) -> None:
    trained_on = set().union(*(persons_of(site) for site in prepared))
    held_out = derive(source[~source["zper"].isin(trained_on)])
    assert evaluation.features.dtype == np.float32
    assert evaluation.features.shape == (5_018, 18)
    for index, (name, (low, high)) in enumerate(DECLARED.items()):
        stand_in = {"educdec": 12.0, "pioff": 500.0}.get(name, np.nan)
        values = held_out[name].fillna(stand_in).clip(low, high).to_numpy(dtype=float)
        by_hand = (values - (low + high) / 2) / ((high - low) / 2)
        np.testing.assert_allclose(evaluation.features[:, index], by_hand, atol=1e-6, err_msg=name)


def test_the_central_references_reach_what_six_sites_together_can_learn() -> None:
    found = randhie.central_references()
    assert found[randhie.CENTRAL_LOGISTIC]["auc"].value == pytest.approx(0.776, abs=0.002)
    assert found[randhie.CENTRAL_TREES]["auc"].value == pytest.approx(0.776, abs=0.005)
    for area in (measures["auc"] for measures in found.values()):
        assert area.low is not None
        assert area.high is not None
        assert area.low < area.value < area.high
        assert 0.02 < area.high - area.low < 0.06


# --- the data is not there -----------------------------------------------------------------------------


def spec_at(folder: Path) -> ModuleSpec:
    return SimpleNamespace(origin=str(folder / "__init__.py"))  # type: ignore[return-value]


def test_a_statsmodels_without_the_file_is_refused_naming_the_version_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aegis.demo.randhie_data.util.find_spec", lambda _: spec_at(tmp_path))
    monkeypatch.setattr("aegis.demo.randhie_data.metadata.version", lambda _: "0.14.6")
    with pytest.raises(ConfigurationError, match=r"statsmodels 0\.14\.6 does not contain .*statsmodels==0\.15\.0"):
        randhie.load_evaluation_set()


def test_statsmodels_that_is_not_installed_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aegis.demo.randhie_data.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"not installed: install statsmodels==0\.15\.0"):
        randhie.load_evaluation_set()


def test_a_file_with_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / randhie.SOURCE_PATH
    path.parent.mkdir(parents=True)
    path.write_text("site,zper\n1,1\n")
    monkeypatch.setattr("aegis.demo.randhie_data.util.find_spec", lambda _: spec_at(tmp_path))
    with pytest.raises(ConfigurationError, match=r"does not have the digest that the demo declares.*0\.15\.0"):
        randhie.prepare_sites(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_importing_the_demo_loads_no_heavy_library() -> None:
    code = (
        "import sys, json, aegis.demo.randhie_data;"
        "print(json.dumps([m for m in ('pandas', 'pyarrow', 'sklearn', 'statsmodels', 'torch') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
