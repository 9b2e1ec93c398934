from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from coreason_enclave.crypto.encoding import parse_json, sha256_hex
from coreason_enclave.schemas import (
    AggregationStrategy,
    Aggregator,
    AttestationReport,
    FederationJob,
    Mechanism,
    PrivacyConfig,
    PrivacyUnit,
    Provenance,
    SafeId,
    SafePath,
    explain,
)

PRIVACY: dict[str, Any] = {"mechanism": "DP_SGD", "target_epsilon": 3.0, "noise_multiplier": 1.0, "max_grad_norm": 1.0}
JOB: dict[str, Any] = {
    "job_id": "liver-toxicity-study-001",
    "min_clients": 3,
    "rounds": 50,
    "strategy": "FED_PROX",
    "privacy": PRIVACY,
    "dataset_id": "secure/data/liver_scans_v1",
    "model_arch": "SimpleMLP",
}


def _job(**changes: Any) -> FederationJob:
    return FederationJob.model_validate({**JOB, **changes})


def _refusal(model: Any, document: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(document)
    return explain(refused.value)


def test_the_job_of_the_specification_constructs_as_written() -> None:
    job = FederationJob(
        job_id="liver-toxicity-study-001",
        min_clients=3,
        rounds=50,
        strategy=AggregationStrategy.FED_PROX,
        privacy=PrivacyConfig(mechanism="DP_SGD", target_epsilon=3.0, noise_multiplier=1.0, max_grad_norm=1.0),  # type: ignore[arg-type]
        dataset_id="secure/data/liver_scans_v1",
        model_arch="SimpleMLP",
    )
    assert job == _job()
    assert (job.aggregator, job.num_byzantine, job.total_steps) == (Aggregator.MEAN, 0, 500)


def test_the_strategies_and_aggregators_have_their_fixed_names() -> None:
    assert set(AggregationStrategy) == {"FED_AVG", "FED_PROX", "SCAFFOLD"}
    assert set(Aggregator) == {"mean", "krum", "multi_krum", "trimmed_mean", "median"}


@pytest.mark.parametrize("field", JOB)
def test_every_field_that_decides_something_must_be_given(field: str) -> None:
    document = {name: value for name, value in JOB.items() if name != field}
    assert f"{field} is required" in _refusal(FederationJob, document)


def test_an_unknown_field_is_refused_by_name() -> None:
    assert "sudo is not a known field" in _refusal(FederationJob, {**JOB, "sudo": True})
    assert "privacy.accountant is not a known field" in _refusal(
        FederationJob, {**JOB, "privacy": {**PRIVACY, "accountant": "gdp"}}
    )


def test_a_job_cannot_be_changed_after_it_was_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _job().rounds = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        _job().privacy.target_epsilon = 1.0  # type: ignore[misc]


# field, values inside its range, values outside it
RANGES: dict[str, tuple[list[float], list[float]]] = {
    "min_clients": ([1, 10_000], [0, -1, 10_001]),
    "rounds": ([10, 100_000], [0, -1, 100_001]),
    "num_examples_cap": ([1, 1e9], [0, 1e9 + 1]),
    "local_steps": ([1, 1_000_000], [0, 1_000_001]),
    "learning_rate": ([1e-9, 1e4], [0, -0.1, 1.1e4]),
    "momentum": ([0, 0.999], [-0.1, 1.0]),
    "average_last_rounds": ([1, 50], [0, -1, 51]),
    "max_update_norm": ([1e-9, 1e9], [0, -1, 1.1e9]),
    "round_deadline_s": ([0.1, 604_800], [0, -1, 604_801]),
}
PRIVACY_RANGES: dict[str, tuple[list[float], list[float]]] = {
    "target_epsilon": ([1e-6, 1000], [0, -1, 1000.1]),
    "noise_multiplier": ([1e-6, 1e6], [0, -1, 1.1e6]),
    "max_grad_norm": ([1e-6, 1e6], [0, -1, 1.1e6]),
    "sample_rate": ([1e-9, 1], [0, -0.1, 1.1]),
    "delta": ([1e-300, 0.1], [0, -1e-5, 0.2]),
}


def _cases(ranges: dict[str, tuple[list[float], list[float]]], which: int) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}={value}") for name in ranges for value in ranges[name][which]]


@pytest.mark.parametrize(("field", "value"), _cases(RANGES, 0))
def test_a_number_within_its_range_is_accepted(field: str, value: float) -> None:
    assert getattr(_job(**{field: value}), field) == value


@pytest.mark.parametrize(("field", "value"), _cases(RANGES, 1))
def test_a_number_out_of_its_range_is_refused_and_the_range_named(field: str, value: float) -> None:
    message = _refusal(FederationJob, {**JOB, field: value})
    assert field in message
    assert "must be" in message


@pytest.mark.parametrize(("field", "value"), _cases(PRIVACY_RANGES, 0))
def test_a_privacy_number_within_its_range_is_accepted(field: str, value: float) -> None:
    assert getattr(PrivacyConfig.model_validate({**PRIVACY, field: value}), field) == value


@pytest.mark.parametrize(("field", "value"), _cases(PRIVACY_RANGES, 1))
def test_a_privacy_number_out_of_its_range_is_refused_and_the_range_named(field: str, value: float) -> None:
    assert f"{field} must be in (0, " in _refusal(PrivacyConfig, {**PRIVACY, field: value})


NOT_NUMBERS: dict[str, object] = {
    "truth": True,
    "text": "1",
    "empty text": "",
    "bytes": b"1",
    "a list": [1],
    "a mapping": {"value": 1},
    "a complex number": 1j,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
}


@pytest.mark.parametrize("value", NOT_NUMBERS.values(), ids=NOT_NUMBERS.keys())
@pytest.mark.parametrize("field", [*RANGES, "num_byzantine"])
def test_what_is_no_finite_number_is_no_number_in_a_job(field: str, value: object) -> None:
    assert field in _refusal(FederationJob, {**JOB, field: value})


@pytest.mark.parametrize("value", NOT_NUMBERS.values(), ids=NOT_NUMBERS.keys())
@pytest.mark.parametrize("field", PRIVACY_RANGES)
def test_what_is_no_finite_number_is_no_number_in_a_privacy_configuration(field: str, value: object) -> None:
    assert field in _refusal(PrivacyConfig, {**PRIVACY, field: value})


@pytest.mark.parametrize("field", ["min_clients", "rounds", "local_steps", "average_last_rounds"])
def test_a_count_is_a_whole_number(field: str) -> None:
    assert field in _refusal(FederationJob, {**JOB, field: 1.5})


@pytest.mark.parametrize("value", [*NOT_NUMBERS.values(), None, 0, -1, 1.5, 1_000_001])
def test_model_arguments_are_whole_numbers_from_one(value: object) -> None:
    assert "model_args" in _refusal(FederationJob, {**JOB, "model_args": {"hidden": value}})


@pytest.mark.parametrize("missing", ["target_epsilon", "max_grad_norm"])
def test_a_guarantee_has_no_default(missing: str) -> None:
    message = _refusal(PrivacyConfig, {name: value for name, value in PRIVACY.items() if name != missing})
    assert f"DP_SGD needs {missing}" in message


def test_noise_may_be_left_to_calibration_and_delta_and_unit_to_the_registration() -> None:
    config = PrivacyConfig.model_validate({n: v for n, v in PRIVACY.items() if n != "noise_multiplier"})
    assert (config.noise_multiplier, config.delta, config.unit) == (None, None, None)


@pytest.mark.parametrize("claim", [{"target_epsilon": 1.0}, {"noise_multiplier": 1.0}])
def test_non_private_training_cannot_dress_up_as_private(claim: dict[str, float]) -> None:
    assert "NON_PRIVATE" in _refusal(PrivacyConfig, {"mechanism": "NON_PRIVATE", **claim})
    assert PrivacyConfig(mechanism=Mechanism.NON_PRIVATE).target_epsilon is None


@pytest.mark.parametrize(
    ("model", "document", "field"),
    [
        (PrivacyConfig, {**PRIVACY, "mechanism": "dp_sgd"}, "mechanism"),
        (PrivacyConfig, {**PRIVACY, "mechanism": "NONE"}, "mechanism"),
        (PrivacyConfig, {**PRIVACY, "unit": "patient"}, "unit"),
        (FederationJob, {**JOB, "strategy": "KRUM"}, "strategy"),
        (FederationJob, {**JOB, "aggregator": "FED_AVG"}, "aggregator"),
        (FederationJob, {**JOB, "version": 2}, "version"),
        (FederationJob, {**JOB, "version": "1"}, "version"),
        (FederationJob, {**JOB, "privacy": None}, "privacy"),
        (FederationJob, {**JOB, "privacy": "DP_SGD"}, "privacy"),
    ],
)
def test_an_unknown_choice_is_refused(model: Any, document: dict[str, Any], field: str) -> None:
    assert field in _refusal(model, document)


def test_a_mean_tolerates_no_byzantine_site_and_says_so() -> None:
    assert "mean tolerates no Byzantine site" in _refusal(FederationJob, {**JOB, "num_byzantine": 1})
    assert _job(num_byzantine=1, aggregator="krum").num_byzantine == 1


SEGMENTS: dict[str, bool] = {
    "a": True,
    "A9": True,
    "liver_scans-v1.2": True,
    "a..b": True,
    "x" * 128: True,
    "x" * 129: False,
    "": False,
    ".": False,
    "..": False,
    ".hidden": False,
    "-rf": False,
    "_private": False,
    " a": False,
    "a ": False,
    "a\n": False,
    "a\0": False,
    "a\\b": False,
    "a:b": False,
    "a%2e": False,
    "a\u202eb": False,
    "\uff0e\uff0e": False,
    "\u0661": False,
    "é": False,
    "a\u0301": False,
    "\u0430": False,
}


@pytest.mark.parametrize(("text", "safe"), SEGMENTS.items(), ids=[repr(text)[:40] for text in SEGMENTS])
def test_a_safe_id_is_a_short_plain_ascii_name(text: str, safe: bool) -> None:
    for adapter in (TypeAdapter(SafeId), TypeAdapter(SafePath)):
        if safe:
            assert adapter.validate_python(text) == text
        else:
            with pytest.raises(ValidationError, match="ASCII letters"):
                adapter.validate_python(text)


@pytest.mark.parametrize("path", ["a/b", "secure/data/liver_scans_v1", "/".join("a" * 8)])
def test_a_safe_path_joins_up_to_eight_safe_ids(path: str) -> None:
    assert TypeAdapter(SafePath).validate_python(path) == path
    with pytest.raises(ValidationError):
        TypeAdapter(SafeId).validate_python(path)


@pytest.mark.parametrize("path", ["/a", "a/", "a//b", "a/../b", "a/./b", "../a", "a/.b", "/".join("a" * 9), "a\\b"])
def test_a_path_that_could_climb_is_not_safe(path: str) -> None:
    with pytest.raises(ValidationError, match=r"no '\.\.'"):
        TypeAdapter(SafePath).validate_python(path)


@given(st.text(max_size=30))
def test_a_safe_path_never_leaves_where_it_is_joined(text: str) -> None:
    try:
        path = TypeAdapter(SafePath).validate_python(text)
    except ValidationError:
        return
    assert not path.startswith(("/", "."))
    assert all(name not in ("", ".", "..") for name in path.split("/"))


@given(
    st.integers(1, 10_000),
    st.integers(1, 100_000),
    st.floats(1e-6, 1000),
    st.none() | st.floats(1e-3, 1e6),
    st.sampled_from(sorted(AggregationStrategy)),
    st.none() | st.sampled_from([PrivacyUnit.PERSON, PrivacyUnit.RECORD]),
)
def test_a_job_survives_the_wire_with_its_digest(
    clients: int, rounds: int, epsilon: float, noise: float | None, strategy: str, unit: str | None
) -> None:
    privacy = {**PRIVACY, "target_epsilon": epsilon, "noise_multiplier": noise, "unit": unit}
    job = _job(min_clients=clients, rounds=rounds, strategy=strategy, privacy=privacy)
    again = FederationJob.model_validate(parse_json(job.canonical()))
    assert again == job
    assert again.digest() == job.digest() == sha256_hex(job.canonical())


@pytest.mark.parametrize(
    "change", [{"rounds": 51}, {"job_id": "other"}, {"learning_rate": 0.2}, {"privacy": {**PRIVACY, "unit": "person"}}]
)
def test_every_change_of_a_job_changes_its_digest(change: dict[str, Any]) -> None:
    assert _job(**change).digest() != _job().digest()


def test_the_canonical_form_shows_every_value_the_safe_ones_too() -> None:
    shown = parse_json(_job().canonical())
    assert shown.keys() == set(FederationJob.model_fields)
    assert shown["privacy"].keys() == set(PrivacyConfig.model_fields)


REPORT: dict[str, Any] = {
    "provenance": "simulated",
    "kind": "simulated",
    "subject": "site-1",
    **dict.fromkeys(("public_key", "kem_key", "job_digest", "nonce", "policy"), "ab" * 32),
    "appraised_at": 1,
    "expires_at": 2,
}


def test_simulated_evidence_can_only_be_reported_as_simulated() -> None:
    assert AttestationReport.model_validate(REPORT).provenance is Provenance.SIMULATED
    for change in ({"provenance": "attested"}, {"provenance": "claimed"}, {"kind": "sev-snp"}):
        assert "provenance must be simulated for simulated evidence" in _refusal(
            AttestationReport, {**REPORT, **change}
        )


@pytest.mark.parametrize("data", ["", "ab" * 31, "AB" * 32, "zz" * 32, "ab" * 33, "ab" * 32 + "\n"])
def test_what_a_report_is_bound_to_are_digests_and_keys(data: str) -> None:
    for field in ("public_key", "kem_key", "job_digest", "nonce", "policy"):
        assert "64 lower-case hex digits" in _refusal(AttestationReport, {**REPORT, field: data})


def test_what_is_attested_names_the_code_that_was_measured_and_nothing_else_does() -> None:
    attested = {**REPORT, "provenance": "attested", "kind": "tdx"}
    assert AttestationReport.model_validate({**attested, "measurement": "agent-1"}).measurement == "agent-1"
    assert "must name the measured code" in _refusal(AttestationReport, attested)
    assert "must name the measured code" in _refusal(AttestationReport, {**REPORT, "measurement": "agent-1"})


def test_an_explanation_puts_every_problem_on_one_line() -> None:
    message = _refusal(FederationJob, {**JOB, "rounds": 0, "job_id": "..", "x": 1})
    assert "\n" not in message
    assert message.count("; ") == 2
    assert "rounds must be in [1, 100000], got 0" in message


def test_importing_the_contracts_imports_nothing_heavy() -> None:
    program = (
        "import sys, coreason_enclave.schemas, coreason_enclave.crypto.envelope;"
        "print({'torch', 'pandas', 'pyarrow', 'scipy', 'flwr'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


CLASHING_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "a loss for classes": ({"kind": "binary", "loss": "absolute"}, "binary has one loss"),
    "a width for classes": ({"kind": "count", "huber_delta": 0.5}, "count has one loss"),
    "a width for squares": ({"kind": "regression", "huber_delta": 0.5}, "huber_delta belongs to loss huber"),
    "weights for a number": ({"kind": "regression", "class_weights": [1.0, 2.0]}, "regression has none"),
    "three weights for two classes": ({"kind": "binary", "class_weights": [1.0, 1.0, 1.0]}, "must be 2 numbers, got 3"),
    "a weight of zero": ({"kind": "binary", "class_weights": [1.0, 0.0]}, "must be in (0, 1000]"),
    "one weight": ({"kind": "multiclass", "class_weights": [1.0]}, "class_weights"),
    "an unknown kind": ({"kind": "ranking"}, "kind"),
}


@pytest.mark.parametrize(("task", "message"), CLASHING_TASKS.values(), ids=CLASHING_TASKS)
def test_a_task_with_options_of_another_is_refused(task: dict[str, Any], message: str) -> None:
    assert message in _refusal(FederationJob, {**JOB, "task": task})


def test_a_job_without_a_task_leaves_it_to_the_architecture() -> None:
    assert _job().task is None


TASKS = [
    {"kind": "binary"},
    {"kind": "binary", "class_weights": [1.0, 4.0]},
    {"kind": "regression"},
    {"kind": "regression", "loss": "huber", "huber_delta": 0.5},
    {"kind": "survival"},
]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_job_with_a_task_is_read_back_as_it_was_written(task: dict[str, Any]) -> None:
    job = _job(task=task)

    assert FederationJob.model_validate(job.model_dump(mode="json")) == job
    assert FederationJob.model_validate(job.model_dump(mode="json", exclude_none=True)) == job
