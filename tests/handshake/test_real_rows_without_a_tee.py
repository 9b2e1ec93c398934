"""Profile ``unattested``: real rows on hosts without hardware evidence, accepted by name, and never called attested."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner, Result

import coreason_enclave.main
from aegis.errors import VerificationFailed
from aegis.federation.job_files import dump_job
from aegis.federation.registry import FederationConfig, FederationFolder
from aegis.verification import Verdict, verify_run
from aegis.verification.checks import _require_unattested_as_such
from aegis.verification.ledgers import SiteLedger
from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.configuration import read_toml
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.hash_log import HashLog
from coreason_enclave.crypto.signing import write_private
from coreason_enclave.errors import JobRejected, LedgerConflict, Reason
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import Profile
from coreason_enclave.site.opening import open_site, prepare_site
from coreason_enclave.wire.roll_call import encode_roll_call
from tests.aegis.commands.conftest import invoke
from tests.conftest import SmallFederation, SmallSite
from tests.coreason_enclave.attestation.appraisal import hosts

NAMES = ("clinic-1", "clinic-2")
KEY = SmallFederation(Path()).signer.public_hex
UNATTESTED: Mapping[str, Any] = {
    "profile": "unattested",
    "attester": "unattested",
    "lineage": {"public": False},
    "policy": {"unattested_coordinators": [KEY]},
}
DEVELOPMENT: Mapping[str, Any] = {"profile": "development"}


@dataclass(frozen=True)
class Founded:
    """A federation's folder with two sites, and a job over their rows."""

    root: Path

    @classmethod
    def at(cls, root: Path, sites: Mapping[str, Any] = UNATTESTED, **changes: Any) -> Founded:
        founded = cls(root)
        federation = SmallFederation(founded.folder.path / "sites")
        write_private(founded.folder.coordinator / "signing.key", bytes([7]) * 32)
        made = {name: federation.create(name, rows=number, **sites) for number, name in enumerate(NAMES, start=1)}
        fields = {
            "profile": "unattested",
            "attester": "unattested",
            "delta": 1e-5,
            "public_keys": {name: site.public_key for name, site in made.items()},
            "unattested_sites": NAMES,
            **changes,
        }
        founded.folder.create(FederationConfig.model_validate(fields))
        (root / "job.yaml").write_text(dump_job(federation.job(min_clients=2, rounds=2)))
        return founded

    @property
    def folder(self) -> FederationFolder:
        return FederationFolder(self.root / "federation")

    @property
    def out(self) -> Path:
        return self.root / "run"

    def site(self, name: str = "clinic-1") -> Path:
        return self.folder.path / "sites" / name

    def run(self) -> Result:
        return invoke("run", self.root / "job.yaml", "--federation", self.folder.path, "--out", self.out)

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "audit.jsonl").read_text().splitlines()]

    def site_log(self, name: str = "clinic-1") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.site(name) / "audit.jsonl").read_text().splitlines()]

    def rewrite(self, path: Path, **changes: Any) -> None:
        """Write top-level lines of a TOML file anew; None takes a line away."""
        document = {**read_toml(path), **changes}
        path.write_text(tomli_w.dumps({name: value for name, value in document.items() if value is not None}))

    def rewrite_policy(self, name: str, **changes: Any) -> None:
        path = self.site(name) / "site.toml"
        self.rewrite(path, policy={**read_toml(path)["policy"], **changes})


def enclave(*arguments: str | Path) -> Result:
    return CliRunner().invoke(coreason_enclave.main.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Founded, Result]:
    founded = Founded.at(tmp_path_factory.mktemp("unattested"))
    result = founded.run()
    assert result.exit_code == 0, result.output
    return founded, result


@pytest.fixture
def finished(finished_once: tuple[Founded, Result], tmp_path: Path) -> Founded:
    return Founded(Path(shutil.copytree(finished_once[0].root, tmp_path / "copy")))


# --- a whole run ----------------------------------------------------------------------------------------------------


def test_private_rows_are_trained_without_hardware_and_the_run_verifies_with_that_point_open(
    finished_once: tuple[Founded, Result],
) -> None:
    founded, result = finished_once
    report = verify_run(founded.out)

    assert "NOT ATTESTED" in result.output
    assert "provenance claimed" in result.output
    assert report.ok
    (open_point,) = [each for each in report.findings if each.subject == "hardware"]
    assert (open_point.verdict, open_point.detail.partition(":")[0]) == (
        Verdict.NOT_CHECKED,
        "not attested, by the profile",
    )
    assert any(notice.startswith("NOT ATTESTED") for notice in report.notices)


def test_nothing_in_a_run_says_attested_without_a_not(finished_once: tuple[Founded, Result]) -> None:
    founded, _ = finished_once
    lines = [*founded.audit(), *founded.site_log("clinic-1"), *founded.site_log("clinic-2")]
    stated = json.loads((founded.out / "config.json").read_text())
    outcome = json.loads((founded.out / "outcome.json").read_text())

    assert {line["details"]["attestation"] for line in lines} == {"not attested"}
    assert {line["details"]["profile"] for line in lines} == {"unattested"}
    provenances = {line["details"]["provenance"] for line in lines if "provenance" in line["details"]}
    assert provenances == {"claimed"}
    assert (stated["profile"], stated["attestation"], outcome["provenance"]) == (
        "unattested",
        "not attested",
        ["claimed"],
    )


def test_every_page_about_an_unattested_site_says_so(finished: Founded) -> None:
    site = finished.site()

    assert "NOT ATTESTED" in enclave("init", "--config", site).output
    assert "NOT ATTESTED" in enclave("ledger", "show", site / "ledger.sqlite").output
    assert "NOT ATTESTED" in enclave("ledger", "show", finished.out / "ledger" / "clinic-1.json").output
    doctor = enclave("doctor", "--config", site, "--socket-only").output
    assert "site.toml: clinic-1, profile unattested, NOT ATTESTED" in doctor
    assert "attester: NOT ATTESTED" in doctor
    assert "coordinator evidence: NOT ATTESTED" in doctor
    assert "NOT ATTESTED" in invoke("federation", "status", finished.folder.path).output
    assert "! NOT ATTESTED" in invoke("verify", finished.out).output


def test_models_and_updates_still_travel_to_keys_that_the_signing_keys_named(
    finished_once: tuple[Founded, Result],
) -> None:
    founded, _ = finished_once
    attested = [line for line in founded.site_log() if line["action"] == "attestation"]

    assert {line["details"]["attester"] for line in attested} == {"unattested"}
    assert all(len(line["details"]["kem_key"]) == 64 for line in attested)


# --- a run folder that was forged -----------------------------------------------------------------------------------


def changed(name: str, before: str, after: str) -> Callable[[Founded], None]:
    def change(founded: Founded) -> None:
        path = founded.out / name
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    return change


FORGERIES: Mapping[str, Callable[[Founded], None]] = {
    "attested updates in the log": changed("audit.jsonl", '"provenance":"claimed"', '"provenance":"attested"'),
    "an attested outcome": changed("outcome.json", '"claimed"', '"attested"'),
    "another profile in the configuration": changed("config.json", '"unattested"', '"production"'),
    "evidence in the configuration": changed("config.json", '"not attested"', '"required"'),
    "an attested round in the state": changed("state/state.json", '"claimed"', '"attested"'),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_folder_that_claims_more_than_the_profile_is_not_verified(
    finished: Founded, forge: Callable[[Founded], None]
) -> None:
    forge(finished)
    assert not verify_run(finished.out).ok


def rewrite_log(founded: Founded, **details: Any) -> None:
    """Write the run's log anew as its keeper could: with these details wherever a line has them, and a whole chain."""
    lines = founded.audit()
    (founded.out / "audit.jsonl").unlink()
    config = sha256_hex((founded.out / "config.json").read_bytes())
    with closing(HashLog(founded.out / "audit.jsonl", clock=lambda: float(lines[0]["time"]))) as log:
        for line in lines:
            made = {name: details.get(name, value) for name, value in line["details"].items()}
            made |= {"config": config} if "config" in made else {}
            what = {name: line.get(name) for name in ("actor", "action", "outcome", "reason")}
            log.append(**what, details=made)


def failing(founded: Founded, subject: str) -> str:
    report = verify_run(founded.out)
    return " ".join(
        each.detail for each in report.findings if each.subject == subject and each.verdict is Verdict.FAILS
    )


def test_a_log_rewritten_to_say_attested_is_contradicted_by_the_sites_signatures(finished: Founded) -> None:
    rewrite_log(finished, provenance="attested")

    assert "differ in provenance" in failing(finished, "signatures")
    assert "every update of this profile is not attested" in failing_labels(finished, outcome="attested")


def test_a_folder_rewritten_to_another_profile_is_contradicted_by_updates_enrolments_and_ledgers(
    finished: Founded,
) -> None:
    changed("config.json", '"unattested"', '"production"')(finished)
    changed("config.json", '"not attested"', '"required"')(finished)
    rewrite_log(finished, profile="production", attestation="required")

    assert "provenance claimed, but every update of this profile is attested" in failing(finished, "labels")
    assert "the site is under profile unattested" in failing(finished, "signatures")


@pytest.mark.parametrize(("profile", "unattested"), [("unattested", False), ("production", True)])
def test_a_ledger_that_began_under_another_profile_than_the_run_is_a_contradiction(
    profile: str, unattested: bool
) -> None:
    findings = SimpleNamespace(unattested=unattested)
    records = SimpleNamespace(
        config=SimpleNamespace(profile=profile, attestation="not attested" if profile == "unattested" else "required"),
        trail=SimpleNamespace(updates=()),
        state=SimpleNamespace(history=()),
        ledgers={"clinic-1": SiteLedger("clinic-1", findings, (), {})},  # type: ignore[arg-type]
    )
    with pytest.raises(VerificationFailed, match="the ledger of clinic-1 began under another profile"):
        _require_unattested_as_such(records)  # type: ignore[arg-type]


def failing_labels(founded: Founded, *, outcome: str) -> str:
    changed("outcome.json", '"claimed"', f'"{outcome}"')(founded)
    return failing(founded, "labels")


# --- nothing changes its profile ------------------------------------------------------------------------------------


def interrupted(founded: Founded, monkeypatch: pytest.MonkeyPatch) -> None:
    from aegis.rounds.round_runner import RoundRunner

    settle = RoundRunner.settle

    def stop_in_round_two(turn: RoundRunner, attempt: Any) -> Any:
        if turn._journal.state.completed_rounds == 1:
            raise KeyboardInterrupt
        return settle(turn, attempt)

    with monkeypatch.context() as patch:
        patch.setattr(RoundRunner, "settle", stop_in_round_two)
        assert founded.run().exit_code == 130


@pytest.mark.parametrize("began", ["unattested", "development"])
def test_a_run_goes_on_under_no_other_profile(tmp_path: Path, began: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unattested = began == "unattested"
    founded = Founded.at(
        tmp_path,
        UNATTESTED if unattested else DEVELOPMENT,
        **({} if unattested else {"profile": "development", "attester": "simulated", "unattested_sites": ()}),
    )
    interrupted(founded, monkeypatch)
    registry = founded.folder.registry
    kept = registry.read_text()
    other: dict[str, Any] = (
        {"profile": "development", "attester": "simulated", "unattested_sites": None}
        if unattested
        else {"profile": "unattested", "attester": "unattested", "unattested_sites": list(NAMES)}
    )
    founded.rewrite(registry, **other)
    refused = founded.run()

    assert refused.exit_code == 2, refused.output
    assert "the profile changed" in refused.output
    registry.write_text(kept)
    assert founded.run().exit_code == 0


def test_a_run_goes_on_under_the_list_of_accepted_sites_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    founded = Founded.at(tmp_path)
    interrupted(founded, monkeypatch)
    founded.rewrite(founded.folder.registry, unattested_sites=["clinic-1"])
    refused = founded.run()

    assert refused.exit_code == 2
    assert "unattested_sites changed" in refused.output


def test_a_site_that_began_attested_or_simulated_is_opened_under_no_other_profile(tmp_path: Path) -> None:
    development = Founded.at(tmp_path / "development", DEVELOPMENT, **IN_DEVELOPMENT)
    unattested = Founded.at(tmp_path / "unattested")
    development.rewrite_policy("clinic-1", unattested_coordinators=[KEY])
    development.rewrite(development.site() / "site.toml", profile="unattested", attester="unattested")
    unattested.rewrite_policy("clinic-1", unattested_coordinators=[], unsafe_unattested_coordinator=True)
    unattested.rewrite(unattested.site() / "site.toml", profile="production", attester="snp")

    for founded in (development, unattested):
        before = (founded.site() / "ledger.sqlite").read_bytes()
        with pytest.raises(LedgerConflict, match="a site keeps its profile"):
            open_site(founded.site())
        assert enclave("init", "--config", founded.site()).exit_code != 0
        assert (founded.site() / "ledger.sqlite").read_bytes() == before


IN_DEVELOPMENT: Mapping[str, Any] = {"profile": "development", "attester": "simulated", "unattested_sites": ()}


# --- hostile ends ---------------------------------------------------------------------------------------------------


def refusals(founded: Founded) -> set[str]:
    return {line["reason"] for line in founded.audit() if line["reason"] is not None}


def assert_nothing_trained(founded: Founded) -> None:
    for name in NAMES:
        ledger = enclave("ledger", "show", founded.site(name) / "ledger.sqlite", "--json")
        assert json.loads(ledger.stdout)["jobs"] == []
    assert not (founded.out / "model.safetensors").exists()


@pytest.mark.parametrize("sites", ["development", "production"])
def test_an_unattested_coordinator_gets_nothing_from_sites_of_another_profile(tmp_path: Path, sites: str) -> None:
    production = {
        "profile": "production",
        "attester": "snp",
        "lineage": {"public": False},
        "policy": {"unsafe_unattested_coordinator": True},
    }
    founded = Founded.at(tmp_path, production if sites == "production" else DEVELOPMENT)
    result = founded.run()

    assert result.exit_code == 3, result.output
    assert refusals(founded) == {"wrong_profile"}
    assert f"profile is {sites}, but the order is under profile unattested" in str(founded.site_log())
    assert_nothing_trained(founded)


@pytest.mark.parametrize("profile", ["development", "production"])
def test_unattested_sites_get_nothing_from_a_coordinator_of_another_profile(tmp_path: Path, profile: str) -> None:
    fields: dict[str, Any] = {"profile": profile, "attester": None, "unattested_sites": ()}
    if profile == "production":
        fields["attestation"] = {"kinds": ["snp", "unattested"]}
    founded = Founded.at(tmp_path, **fields)

    assert founded.run().exit_code == 3
    assert refusals(founded) == {"wrong_profile"}
    assert_nothing_trained(founded)


def test_a_site_that_nobody_lists_gets_no_model(tmp_path: Path) -> None:
    founded = Founded.at(tmp_path, unattested_sites=["clinic-1"])

    assert founded.run().exit_code == 4
    refused = [line for line in founded.audit() if line["reason"] == "attestation_unacceptable"]
    assert {line["details"]["site"] for line in refused} == {"clinic-2"}
    assert "no list accepts clinic-2" in str(refused)


def test_a_coordinator_that_a_site_does_not_list_gets_no_update(tmp_path: Path) -> None:
    founded = Founded.at(tmp_path)
    founded.rewrite_policy("clinic-2", unattested_coordinators=[])

    assert founded.run().exit_code == 4
    refused = [line for line in founded.site_log("clinic-2") if line["outcome"] == "refused"]
    assert {line["reason"] for line in refused} == {"attestation_unacceptable"}
    assert "no list accepts coordinator" in str(refused)


def test_a_coordinator_that_leaves_its_statement_out_gets_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    founded = Founded.at(tmp_path)
    monkeypatch.setattr("aegis.runs.coordinate.attester_named", lambda name: None)

    assert founded.run().exit_code == 4
    assert "sent no evidence" in str(founded.site_log())
    assert_nothing_trained(founded)


@pytest.mark.parametrize("attester", [SimulatedAttester(), hosts.Host(CpuKind.SNP)], ids=["simulated", "hardware"])
def test_a_coordinator_that_shows_something_else_than_its_statement_gets_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attester: Any
) -> None:
    founded = Founded.at(tmp_path)
    monkeypatch.setattr("aegis.runs.coordinate.attester_named", lambda name: attester)

    assert founded.run().exit_code == 4
    assert {"attestation_unacceptable"} <= {line["reason"] for line in founded.site_log()}
    assert_nothing_trained(founded)


def test_a_roll_call_with_an_enrolment_under_another_profile_is_refused(federation: Any) -> None:
    site, job = federation.create(), federation.job(min_clients=2)
    called = encode_roll_call(
        {
            "clinic-1": federation.enrolment(job, "clinic-1"),
            "clinic-2": federation.enrolment(job, "clinic-2", profile=Profile.UNATTESTED),
        }
    )
    opened = site.open(clock=federation.clock)
    try:
        with pytest.raises(JobRejected, match="clinic-2 enrolled under another profile") as refused:
            opened.session.run(federation.order(job, roll_call=called))
    finally:
        opened.close()
    assert refused.value.reason is Reason.WRONG_PROFILE


# --- what configurations may say ------------------------------------------------------------------------------------


SITES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "the profile without the attester": ({"profile": "unattested", "attester": "simulated"}, "need each other"),
    "the attester without the profile": ({"attester": "unattested"}, "need each other"),
    "a list under another profile": ({"policy": {"unattested_coordinators": [KEY]}}, "needs profile unattested"),
    "a coordinator that gives no orders": (
        {**UNATTESTED, "policy": {"unattested_coordinators": ["ab" * 32]}},
        "coordinator_keys does not list",
    ),
    "every coordinator": ({**UNATTESTED, "policy": {"unsafe_unattested_coordinator": True}}, "asks no coordinator"),
    "evidence of coordinators": (
        {**UNATTESTED, "policy": {"coordinator_attestation": {"kinds": ["snp"]}}},
        "asks no coordinator",
    ),
    "participants that nobody knows": (
        {**UNATTESTED, "policy": {"unsafe_count_unknown_participants": True}},
        "needs profile development",
    ),
    "private rows in development": ({"lineage": {"public": False}}, "needs every lineage to be public"),
}


@pytest.mark.parametrize(("changes", "words"), SITES.values(), ids=SITES)
def test_a_site_toml_is_refused_with(tmp_path: Path, changes: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SmallFederation(tmp_path).create(**changes)
    assert not (tmp_path / "clinic-1").exists()


REGISTRIES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "the profile without the attester": ({"profile": "unattested"}, "need each other"),
    "the attester without the profile": ({"profile": "production", "attester": "unattested"}, "need each other"),
    "a list under another profile": (
        {"profile": "production", "unattested_sites": ["a"]},
        "unattested_sites needs profile unattested",
    ),
    "a list of a stranger": (
        {"profile": "unattested", "attester": "unattested", "unattested_sites": ["b"]},
        "b is not a participant",
    ),
    "a policy for evidence": (
        {"profile": "unattested", "attester": "unattested", "attestation": {"kinds": ["snp"]}},
        "appraises no evidence",
    ),
}


@pytest.mark.parametrize(("changes", "words"), REGISTRIES.values(), ids=REGISTRIES)
def test_a_federation_toml_is_refused_with(changes: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FederationConfig.model_validate({"delta": 1e-5, "public_keys": {"a": "ab" * 32}, **changes})


def test_an_empty_list_accepts_no_coordinator_and_doctor_says_so(tmp_path: Path) -> None:
    site: SmallSite = SmallFederation(tmp_path).create(**{**UNATTESTED, "policy": {}})
    doctor = enclave("doctor", "--config", site.folder, "--socket-only").output
    assert "FAIL  coordinator evidence: unattested_coordinators is empty" in doctor


def test_a_non_private_job_stays_refused_on_rows_that_are_not_public(tmp_path: Path) -> None:
    founded = Founded.at(tmp_path)
    job = SmallFederation(tmp_path).job(
        min_clients=2, rounds=2, privacy={"mechanism": "NON_PRIVATE", **dict.fromkeys(NOISE, None)}
    )
    (tmp_path / "job.yaml").write_text(dump_job(job))

    assert founded.run().exit_code == 3
    assert "non-private training on it is refused" in str(founded.site_log())
    assert_nothing_trained(founded)


NOISE = ("target_epsilon", "noise_multiplier", "max_grad_norm")


# --- both sides write it down, by command ---------------------------------------------------------------------------


def test_admission_needs_the_coordinators_word_for_each_site_by_name(tmp_path: Path) -> None:
    created = invoke("federation", "init", tmp_path / "study", "--profile", "unattested")
    folder = FederationFolder(tmp_path / "study")
    site = SmallFederation(tmp_path).create(**UNATTESTED)
    request = tmp_path / "request.json"
    assert enclave("request", site.folder, "--out", request).exit_code == 0
    before = folder.registry.read_bytes()
    refused = invoke("federation", "admit", folder.path, request, "--out", tmp_path / "grant.json")
    assert folder.registry.read_bytes() == before
    admitted = invoke(
        "federation", "admit", folder.path, request, "--out", tmp_path / "grant.json", "--accept-unattested"
    )
    renewed = invoke("federation", "admit", folder.path, request, "--out", tmp_path / "grant.json")

    assert "profile unattested, NOT ATTESTED" in created.output
    assert refused.exit_code == 2
    assert "--accept-unattested" in refused.output
    assert admitted.exit_code == 0, admitted.output
    assert "the site is NOT ATTESTED" in admitted.output
    assert renewed.exit_code == 0, renewed.output
    assert folder.config().unattested_sites == ("clinic-1",)


def test_joining_names_the_line_in_which_a_site_accepts_the_coordinator(tmp_path: Path) -> None:
    folder = FederationFolder(tmp_path / "study")
    write_private(folder.coordinator / "signing.key", bytes([7]) * 32)
    invoke("federation", "init", folder.path, "--profile", "unattested")
    site = SmallFederation(tmp_path).create(**{**UNATTESTED, "policy": {}})
    request, grant = tmp_path / "request.json", tmp_path / "grant.json"
    enclave("request", site.folder, "--out", request)
    invoke("federation", "admit", folder.path, request, "--out", grant, "--accept-unattested")
    joined = enclave("join", site.folder, grant, "--coordinator-key", KEY)

    assert joined.exit_code == 0, joined.output
    assert f'unattested_coordinators = ["{KEY}"]' in joined.output


def test_no_other_federation_takes_that_word(tmp_path: Path) -> None:
    invoke("federation", "init", tmp_path / "study")
    site = SmallFederation(tmp_path).create(**UNATTESTED)
    enclave("request", site.folder, "--out", tmp_path / "request.json")
    refused = invoke("federation", "admit", tmp_path / "study", tmp_path / "request.json", "--accept-unattested")

    assert refused.exit_code == 2
    assert "accepts no unattested site" in refused.output
    assert FederationFolder(tmp_path / "study").config().public_keys == {}


def test_creating_an_unattested_site_again_changes_nothing(tmp_path: Path) -> None:
    site = SmallFederation(tmp_path).create(**UNATTESTED)
    before = site.ledger_entries()
    prepare_site(site.folder, site.config)

    assert [entry["type"] for entry in before] == ["founded", "unattested", "registered"]
    assert site.ledger_entries() == before
