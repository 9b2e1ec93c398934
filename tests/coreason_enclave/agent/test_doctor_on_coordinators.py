"""The doctor says whether any coordinator's evidence could ever meet what a site asks for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from coreason_enclave.agent.doctor.coordinator import evidence_of_coordinators
from coreason_enclave.agent.doctor.findings import Diagnosis, DiagnosisLevel, Examined, examined_safely
from coreason_enclave.policy import Profile, SiteConfig, load_site_config

NOW = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
CODE = {
    "name": "coordinator-1",
    "kind": "tdx",
    "measurements": {"mr_td": "11" * 48, "rt_mr1": "22" * 48, "rt_mr2": "33" * 48},
}
MET: dict[str, Any] = {
    "kinds": ["tdx"],
    "reference_values": [CODE],
    "platforms": {"coordinator": ["3f3f3f3f3f3f3f3f"]},
}

Examine = Callable[..., dict[str, Diagnosis]]


@pytest.fixture
def examine(federation: Any) -> Examine:
    """What the doctor finds at a site that asks for this, under this profile, with these endorsements."""
    folder = federation.create().folder
    config = load_site_config(folder / "site.toml")

    def create(
        wanted: dict[str, Any] | None,
        *,
        profile: Profile = Profile.PRODUCTION,
        endorsements: dict[str, Any] | None = None,
    ) -> dict[str, Diagnosis]:
        document = config.model_dump(exclude_none=True) | {"endorsements": endorsements or {"fetch": True}}
        document["policy"] |= {"coordinator_attestation": wanted, "unsafe_unattested_coordinator": wanted is None}
        document["policy"]["unsafe_count_unknown_participants"] = False
        changed = SiteConfig.model_validate(document | {"profile": profile})
        site = Examined(folder, changed, lambda: NOW)
        return {each.check: each for each in examined_safely("endorsements", evidence_of_coordinators, site)}

    return create


def test_a_policy_that_can_be_met_is_ok(examine: Examine) -> None:
    found = examine(MET)

    assert {name: finding.verdict for name, finding in found.items()} == {
        "coordinator evidence": DiagnosisLevel.OK,
        "coordinator endorsements": DiagnosisLevel.OK,
    }
    assert "tdx" in found["coordinator evidence"].found


NEVER_MET = {
    "no kind": ({"kinds": []}, "kinds names nothing"),
    "simulated evidence under profile production": ({"kinds": ["simulated"]}, "kinds names nothing"),
    "no reference value": ({"reference_values": []}, "no reference value of kind tdx"),
    "reference values of another kind": ({"kinds": ["sgx"]}, "no reference value of kind sgx"),
    "nothing but expired reference values": (
        {"reference_values": [{**CODE, "not_after": "2026-11-21"}]},
        "every reference value of kind tdx has expired",
    ),
    "no machine": ({"platforms": {}}, "no machine of 'coordinator'"),
    "machines of somebody else": ({"platforms": {"hospital-a": ["3f3f3f3f3f3f3f3f"]}}, "no machine of 'coordinator'"),
    "SEV-SNP without a floor": ({"kinds": ["snp"]}, "snp.tcb_floor names no product"),
}


@pytest.mark.parametrize(("change", "complaint"), NEVER_MET.values(), ids=NEVER_MET)
def test_a_policy_that_nothing_can_meet_fails_and_says_why(
    examine: Examine, change: dict[str, Any], complaint: str
) -> None:
    found = examine({**MET, **change})["coordinator evidence"]

    assert found.verdict is DiagnosisLevel.FAIL
    assert complaint in found.found
    assert "site.toml" in found.to_do


@pytest.mark.parametrize(
    ("last_day", "verdict"),
    [("2026-11-22", DiagnosisLevel.WARN), ("2026-12-12", DiagnosisLevel.WARN), ("2026-12-13", DiagnosisLevel.OK)],
)
def test_a_reference_value_that_ends_soon_is_told_in_time(
    examine: Examine, last_day: str, verdict: DiagnosisLevel
) -> None:
    found = examine({**MET, "reference_values": [{**CODE, "not_after": last_day}]})["coordinator evidence"]

    assert found.verdict is verdict
    assert bool(found.to_do) == (verdict is DiagnosisLevel.WARN)


def test_a_next_value_beside_the_one_that_ends_is_enough(examine: Examine) -> None:
    values = [{**CODE, "not_after": "2026-11-25"}, {**CODE, "name": "coordinator-2"}]

    assert examine({**MET, "reference_values": values})["coordinator evidence"].verdict is DiagnosisLevel.OK


def test_a_site_that_asks_for_nothing_is_told_what_that_means(examine: Examine) -> None:
    production, development = examine(None), examine(None, profile=Profile.DEVELOPMENT)

    assert production["coordinator evidence"].verdict is DiagnosisLevel.WARN
    assert "UNSAFE" in production["coordinator evidence"].found
    assert development["coordinator evidence"].verdict is DiagnosisLevel.OK


def test_simulated_coordinators_are_good_enough_for_development(examine: Examine) -> None:
    found = examine({"kinds": ["simulated"]}, profile=Profile.DEVELOPMENT)

    assert {finding.verdict for finding in found.values()} == {DiagnosisLevel.OK}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"kinds": ["tdx"]}, DiagnosisLevel.FAIL),
        ({"kinds": ["snp"]}, DiagnosisLevel.WARN),
        ({"kinds": ["snp"], "gpus": 1}, DiagnosisLevel.FAIL),
    ],
    ids=["tdx", "snp", "snp with a GPU"],
)
def test_without_a_source_of_endorsements_only_snp_can_go_by_what_its_host_hands_over(
    examine: Examine, change: dict[str, Any], verdict: DiagnosisLevel
) -> None:
    found = examine({**MET, **change}, endorsements={"fetch": False})["coordinator endorsements"]

    assert found.verdict is verdict
    assert "[endorsements]" in found.to_do


def test_a_bundle_that_is_not_there_fails(examine: Examine) -> None:
    found = examine(MET, endorsements={"bundle": "nowhere"})["endorsements"]

    assert found.verdict is DiagnosisLevel.FAIL
    assert "nowhere" in found.found


@pytest.mark.parametrize(("change", "module"), [({}, "dcap_qvl"), ({"gpus": 1}, "signxml")])
def test_a_library_that_is_not_installed_fails(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], module: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))

    found = examine({**MET, **change})["coordinator endorsements"]

    assert found.verdict is DiagnosisLevel.FAIL
    assert module in found.found
