"""The steps that ``docs/OPERATIONS.md`` gives for enrolling a host, carried out as they stand there.

The host and its vendor are of our own make: everything is real but the roots.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import aegis.cli
import coreason_enclave.main
from aegis.federation.registry import FederationFolder
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.binding import Binding
from coreason_enclave.attestation.endorsements import opened
from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.attestation.verify.snp import SnpProduct
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.commands import attest
from coreason_enclave.schemas import AttestationReport, Provenance
from coreason_enclave.site.registration_request import make_request
from tests.coreason_enclave.attestation.appraisal import hosts
from tests.coreason_enclave.attestation.snp import hierarchy as amd
from tools import check_docs

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
PROGRAMS = {"aegis": aegis.cli.main, "coreason-enclave": coreason_enclave.main.main}
VENDOR = amd.Vendor()
CHIP = hosts.PLATFORM[CpuKind.SNP]
BINDING = hosts.binding(subject="clinic-1")
HOST = hosts.Host(CpuKind.SNP)
NEXT = '[[attestation.reference_values]]\nname = "agent-2"\nkind = "snp"\n'
POLICY = """
[attestation]
kinds = ["snp"]

[attestation.snp.tcb_floor.Milan]
boot_loader = 3
tee = 1
snp = 9
microcode = 211

[attestation.platforms]
clinic-1 = ["{chip}"]

"""


class OurHost:
    """Where the commands look for hardware, they find a processor of our vendor's."""

    def detected(self) -> str:
        return "snp"

    def attester(self, name: str) -> hosts.Host:
        assert name == "snp"
        return HOST


@pytest.fixture(autouse=True)
def our_vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attest, "ThisHost", OurHost)
    monkeypatch.setattr("aegis.evidence.verification.verify_snp", amd.verifier().verify)


def lines() -> list[str]:
    section = TEXT.split("### Enrolling a host", 1)[1].split("\n### ", 1)[0]
    (block,) = [block for block in check_docs.parse(section).blocks if block.info == "sh"]
    return block.body.splitlines()


def line_of(*words: str) -> str:
    (found,) = [line for line in lines() if all(word in line for word in words)]
    return found


def typed(line: str, *more: str) -> Result:
    """The line as it stands on the page, at this federation, with this processor's id, at a moment of the vendor's."""
    program, *words = shlex.split(line.replace("/srv/study", "study"))
    if "--platform" in words:
        words[words.index("--platform") + 1] = CHIP
    moment = ["--now", str(amd.NOW)] if {"verify", "appraise"} & set(words) else []
    done = CliRunner().invoke(PROGRAMS[program], [*words, *moment, *more])
    assert done.exit_code == 0, f"{line}\n{done.output}"
    return done


def pem(*certificates: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


def endorsements() -> dict[str, bytes]:
    """By their names on the page."""
    return {
        "vcek.der": amd.leaf_of(VENDOR),
        "chain.pem": pem(amd.authority_of(VENDOR), amd.root_of(VENDOR)),
        "vcek.crl": VENDOR.revocation_list(),
    }


def fill_bundle(folder: Path) -> None:
    """The layout that the page shows."""
    tcb = amd.TCB[SnpProduct.MILAN].hex()
    given = endorsements()
    for name, content in {
        f"snp/Milan/vcek/{CHIP}-{tcb}.der": given["vcek.der"],
        "snp/Milan/vcek_chain.pem": given["chain.pem"],
        "snp/Milan/vcek.crl": given["vcek.crl"],
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture
def study(federation: Any) -> FederationFolder:
    """A production federation in which clinic-1 was admitted; no machine is pinned yet."""
    typed("aegis federation init study --profile production")
    path = Path("study/federation.toml")
    document = POLICY.partition("[attestation.platforms]")[0]
    path.write_text(path.read_text() + '[endorsements]\nbundle = "endorsements"\n' + document + reference())
    fill_bundle(Path("study/endorsements"))
    Path("request.json").write_bytes(make_request(federation.create("clinic-1").folder))
    typed("aegis federation admit study request.json")
    return FederationFolder(Path("study"))


def reference() -> str:
    """What the page's command prints of this host."""
    if not Path("clinic-1.json").exists():
        typed(line_of("coreason-enclave attest"))
    return typed(line_of("inspect", "--reference")).stdout + "\n"


def appraised(study: FederationFolder, binding: Binding = BINDING, now: int = amd.NOW) -> AttestationReport:
    """What a run of this federation makes of the host's evidence."""
    config = study.config()
    appraiser = Appraiser(
        config.attestation_policy(),
        config.profile,
        opened(config.endorsements, study.path),
        verifiers=hosts.verifiers(CpuKind.SNP),
    )
    return appraiser.appraise(HOST.produce(binding.context()), binding, now)


def refusal(act: Callable[[], object]) -> Refusal:
    with pytest.raises(VerificationRefused) as refused:
        act()
    return refused.value.refusal


def test_the_page_s_commands_enrol_a_host_whose_evidence_a_run_then_accepts(study: FederationFolder) -> None:
    for name, content in endorsements().items():
        Path(name).write_bytes(content)

    verdict = json.loads(typed(line_of("evidence verify")).stdout)
    Path("policy.toml").write_text(POLICY.format(chip=verdict["platform_id"]) + reference())
    accepted = typed(line_of("evidence appraise")).stdout
    pinned = typed(line_of("federation pin")).stdout
    report = appraised(study)

    assert verdict["platform_id"] == CHIP
    assert "measurements" in verdict["not_checked"]
    assert "ACCEPTED" in accepted
    assert f"clinic-1 is pinned to {CHIP}" in pinned
    assert report.provenance is Provenance.ATTESTED
    assert report.platform_ids == (CHIP,)
    assert report.not_checked == ()


def test_before_it_is_pinned_the_same_host_is_refused(study: FederationFolder) -> None:
    assert refusal(partial(appraised, study)) is Refusal.PLATFORM_UNKNOWN


def test_the_machine_of_one_site_is_not_another_s(study: FederationFolder) -> None:
    typed(line_of("federation pin"))

    assert refusal(partial(appraised, study, replace(BINDING, subject="clinic-2"))) is Refusal.PLATFORM_UNKNOWN


def test_two_reference_values_roll_from_one_code_to_the_next(study: FederationFolder) -> None:
    typed(line_of("federation pin"))
    path = study.registry
    old = study.config().attestation_policy().reference_values[0]
    last_day = datetime.fromtimestamp(amd.NOW, UTC)
    next_day = amd.NOW + 86_400 // 2
    assert datetime.fromtimestamp(next_day, UTC).date() > last_day.date()

    path.write_text(f'{path.read_text()}\n{NEXT}measurements = {{ measurement = "{"cd" * 48}" }}\n')
    both = {value.name for value in study.config().attestation_policy().reference_values}
    named = f'name = "{old.name}"\n'
    path.write_text(path.read_text().replace(named, f"{named}not_after = {last_day:%Y-%m-%d}\n"))

    assert both == {old.name, "agent-2"}
    assert appraised(study, now=amd.NOW).measurement == old.name
    assert refusal(partial(appraised, study, now=next_day)) is Refusal.MEASUREMENT


def test_a_bundle_without_its_revocation_list_refuses_until_the_policy_names_that(study: FederationFolder) -> None:
    typed(line_of("federation pin"))
    (study.path / "endorsements/snp/Milan/vcek.crl").unlink()
    unchecked = refusal(partial(appraised, study))
    text = study.registry.read_text()
    study.registry.write_text(text.replace("[attestation]\n", '[attestation]\naccept_unchecked = ["snp.revocation"]\n'))

    assert unchecked is Refusal.UNCHECKED
    assert appraised(study).not_checked == ("snp.revocation",)


@pytest.mark.parametrize("name", ["vcek_chain.pem", "vcek/{chip}-{tcb}.der"])
def test_a_file_that_is_missing_from_the_bundle_is_named(study: FederationFolder, name: str) -> None:
    typed(line_of("federation pin"))
    missing = "snp/Milan/" + name.format(chip=CHIP, tcb=amd.TCB[SnpProduct.MILAN].hex())
    (study.path / "endorsements" / missing).unlink()

    with pytest.raises(VerificationRefused, match=missing) as refused:
        appraised(study)

    assert refused.value.refusal is Refusal.ENDORSEMENTS_MISSING
