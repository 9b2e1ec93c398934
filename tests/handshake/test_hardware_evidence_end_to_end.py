"""Whole production runs over private data: SNP and TDX hosts of vendors of our own, both directions, nothing faked.

Evidence is genuine in format and signature; only the roots above it are the tests' own, handed to the appraisers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from aegis.coordination.quarantine import QuarantineRecord
from aegis.errors import RunPaused
from aegis.runtimes.in_process import client_app
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.evidence import CpuKind, Evidence
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import Provenance
from coreason_enclave.site import opening as site_rooms
from coreason_enclave.wire.documents import COORDINATOR
from tests.coreason_enclave.attestation.appraisal import hosts
from tests.handshake.parties import Clock, Tapped, UnderSecretKeys, with_handshake
from tests.support.studies import MakeStudy, Study, a_job

KINDS = {"clinic-1": CpuKind.SNP, "clinic-2": CpuKind.TDX, "clinic-3": CpuKind.SNP}
BOTH = [CpuKind.SNP, CpuKind.TDX]


def accepts(subjects: dict[str, CpuKind], **changes: Any) -> dict[str, Any]:
    """A policy as it stands in TOML: our SNP and TDX images, each subject on the machine that it was enrolled with."""
    return {
        "kinds": [kind.value for kind in BOTH],
        "snp": {"tcb_floor": {"Milan": hosts.FLOOR}},
        "reference_values": [
            {"name": f"agent-{kind.value}", "kind": kind.value, "measurements": hosts.MEASUREMENTS[kind]}
            for kind in BOTH
        ],
        "platforms": {subject: [hosts.PLATFORM[kind]] for subject, kind in subjects.items()},
        "unsafe_shared_platforms": sorted({hosts.PLATFORM[kind] for kind in subjects.values()}),
        **changes,
    }


OF_THE_COORDINATOR = accepts({COORDINATOR: CpuKind.TDX})


@dataclass
class Asked:
    """A host that proves itself, and counts how often."""

    kind: CpuKind
    contexts: list[bytes] = field(default_factory=list)

    def produce(self, context: bytes) -> Evidence:
        self.contexts.append(context)
        return hosts.Host(self.kind).produce(context)


@dataclass
class Federation:
    """Production sites with private rows on such hosts, and a coordinator on another."""

    study: Study
    clock: Clock
    on: dict[str, CpuKind] = field(default_factory=lambda: dict(KINDS))
    wire: Tapped = field(default_factory=Tapped)
    hosts: dict[str, Asked] = field(default_factory=dict)

    def adapt(self, site: Any) -> Any:
        """The site as it was opened from its folder, under our own vendors' roots."""
        handshake = site.session.handshake
        assert handshake.appraiser is not None
        assert handshake.appraiser.profile is Profile.PRODUCTION
        attester = self.hosts[site.config.site_id] = Asked(self.on[site.config.site_id])
        session = with_handshake(
            site.session, clock=self.clock, attester=attester, appraiser=appraiser(handshake.appraiser.policy)
        )
        return client_app(replace(session, attester=attester))

    def run(self, policy: dict[str, Any], *, coordinator: CpuKind = CpuKind.TDX, **changes: Any) -> None:
        self.study.run(
            a_job(self.study.federation, **changes),
            self.adapt,
            profile=Profile.PRODUCTION,
            appraiser=appraiser(AttestationPolicy.model_validate(policy)),
            attester=Asked(coordinator),
            clock=self.clock,
            grid=self.wire,
        )

    def proved(self) -> dict[str, dict[str, Any]]:
        """What the audit log says about each site's attestation."""
        accepted = [line for line in self.study.audit() if (line["action"], line["outcome"]) == ("attest", "accepted")]
        return {line["details"]["site"]: line["details"] for line in accepted}

    def quarantine(self) -> dict[str, QuarantineRecord]:
        return dict(self.study.state().quarantine)


def appraiser(policy: AttestationPolicy) -> Appraiser:
    return Appraiser(policy, Profile.PRODUCTION, hosts.source(CpuKind.TDX), verifiers=hosts.verifiers(CpuKind.TDX))


@pytest.fixture
def three(study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> Federation:
    monkeypatch.setattr(site_rooms, "attester_named", lambda name: Asked(CpuKind(name)))
    run = study(
        3,
        profile="production",
        attester="snp",
        lineage={"public": False},
        policy={"coordinator_attestation": OF_THE_COORDINATOR},
    )
    return Federation(UnderSecretKeys.of(run), Clock(hosts.NOW))


def test_a_production_run_over_private_rows_is_attested_in_both_directions_from_its_first_byte_to_its_last(
    three: Federation,
) -> None:
    three.run(accepts(KINDS))
    records = three.study.history()
    assert [dict(record.provenance) for record in records] == [dict.fromkeys(KINDS, Provenance.ATTESTED)] * 2
    assert three.quarantine() == {}
    proved = three.proved()
    assert {name: told["kind"] for name, told in proved.items()} == {n: kind.value for n, kind in KINDS.items()}
    assert {told["provenance"] for told in proved.values()} == {"attested"}
    assert {name: told["measurement"] for name, told in proved.items()} == {
        name: f"agent-{kind.value}" for name, kind in KINDS.items()
    }
    assert {name: told["platform_ids"] for name, told in proved.items()} == {
        name: [hosts.PLATFORM[kind]] for name, kind in KINDS.items()
    }
    assert {told["expires_at"] for told in proved.values()} == {hosts.NOW + 600}
    admitted = [line for line in three.study.audit() if (line["action"], line["outcome"]) == ("admit", "accepted")]
    assert {line["details"]["provenance"] for line in admitted} == {"attested"}
    assert "simulated" not in (three.study.folder / "audit.jsonl").read_text()


def left_out(three: Federation, site: str, reason: str, words: str) -> None:
    """Quarantined with its reason; no model, no step; the others finished."""
    node = int(site[-1])
    assert three.study.history()[0].refused == {site: reason}
    assert three.quarantine()[site].reason == reason
    assert "train" not in three.wire.tap.to(node)
    assert three.study.reserved_rounds()[site] == []
    assert words in str([line for line in three.study.audit() if line["reason"] == reason])


def test_the_right_image_on_somebody_elses_machine_is_not_this_site(three: Federation) -> None:
    policy = accepts(KINDS)
    policy["platforms"]["clinic-1"] = ["ab" * 64]
    three.run(policy, min_clients=2, rounds=1)
    left_out(three, "clinic-1", "attestation_unacceptable", "platforms lists no")


def test_another_image_on_the_right_machine_is_not_this_site(three: Federation) -> None:
    policy = accepts(KINDS)
    policy["reference_values"][1]["measurements"] = {**hosts.MEASUREMENTS[CpuKind.TDX], "rt_mr1": "0f" * 48}
    three.run(policy, min_clients=2, rounds=1)
    left_out(three, "clinic-2", "attestation_unacceptable", "no unexpired reference value")


def test_a_policy_that_lists_no_image_accepts_nobody(three: Federation) -> None:
    with pytest.raises(RunPaused, match="attestation_unacceptable"):
        three.run(accepts(KINDS, reference_values=[]))
    assert three.study.reserved_rounds() == {name: [] for name in KINDS}
    assert {passed.kind for passed in three.wire.tap.passed} == {"query.enrol", "query.attest"}


def test_a_site_that_no_machine_was_enrolled_for_is_left_out(three: Federation) -> None:
    policy = accepts({"clinic-1": CpuKind.SNP, "clinic-3": CpuKind.SNP})
    three.run(policy, min_clients=2, rounds=1)
    left_out(three, "clinic-2", "attestation_unacceptable", "platforms lists no")


def test_evidence_under_another_root_is_none(three: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = hosts.cpu_report

    def report(kind: CpuKind, data: bytes) -> Any:
        if kind is CpuKind.TDX:
            return genuine(kind, data)
        stranger = replace(hosts._milan(), owner="stranger")
        return genuine(kind, data).model_copy(update={"report": hosts.to_base64(stranger.report(changes={0x50: data}))})

    three.on = {"clinic-1": CpuKind.SNP, "clinic-2": CpuKind.TDX, "clinic-3": CpuKind.TDX}
    monkeypatch.setattr(hosts, "cpu_report", report)
    three.run(accepts(three.on), min_clients=2, rounds=1)
    left_out(three, "clinic-1", "attestation_invalid", "clinic-1")


def test_sites_refuse_a_coordinator_on_a_machine_or_with_an_image_that_they_do_not_know(three: Federation) -> None:
    with pytest.raises(RunPaused, match="attestation_unacceptable"):
        three.run(accepts(KINDS), coordinator=CpuKind.SNP)
    assert three.study.reserved_rounds() == {name: [] for name in KINDS}
    assert three.quarantine() == {}  # it is each site's right
    logged = [line for site in three.study.sites for line in site.log() if line["action"] == "round"]
    assert {line["reason"] for line in logged} == {"attestation_unacceptable"}
    assert "platforms lists no" in logged[0]["details"]["message"]


def test_each_update_of_a_round_carries_evidence_of_its_own(three: Federation) -> None:
    three.run(accepts(KINDS), rounds=2)
    assert {name: len(host.contexts) for name, host in three.hosts.items()} == dict.fromkeys(KINDS, 3)
    assert all(len(set(host.contexts)) == 3 for host in three.hosts.values())


def test_a_machine_that_the_vendors_revoke_between_rounds_is_left_out_of_the_next(three: Federation) -> None:
    """Its result is still fresh and is not asked for again; its update's own evidence is appraised all the same."""
    policy = AttestationPolicy.model_validate(accepts(KINDS))
    revised = appraiser(policy)

    def observe(record: Any) -> None:
        object.__setattr__(revised, "policy", AttestationPolicy.model_validate(accepts({**KINDS, "clinic-2": "snp"})))

    three.study.run(
        a_job(three.study.federation, min_clients=2),
        three.adapt,
        profile=Profile.PRODUCTION,
        appraiser=revised,
        attester=Asked(CpuKind.TDX),
        clock=three.clock,
        observe=observe,
    )
    first, second = three.study.history()
    assert first.admitted == tuple(KINDS)
    assert second.refused == {"clinic-2": "attestation_unacceptable"}
