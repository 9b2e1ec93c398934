from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.x509 import ocsp

from coreason_enclave.attestation.binding import gpu_nonce, report_data
from coreason_enclave.attestation.endorsements import FetchedEndorsements, FirstOf, HttpReply
from coreason_enclave.attestation.endorsements.collateral import DcapCollateral
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, to_base64
from coreason_enclave.attestation.verify.snp import SnpProduct
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.crypto.encoding import parse_json
from coreason_enclave.errors import Reason
from tests.coreason_enclave.attestation.appraisal.hosts import (
    KINDS,
    NOW,
    Host,
    Trial,
    binding,
    cpu_report,
    gpu_report,
    intel_of,
    policy,
)
from tests.coreason_enclave.attestation.endorsements.services import (
    DRIVER,
    VCEK,
    Service,
    everything,
    page,
    plain_http,
    serving,
)
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

SNP_REPORT = cpu_report(CpuKind.SNP, bytes(64))
UNAVAILABLE = Reason.ATTESTATION_UNAVAILABLE
every_kind = pytest.mark.parametrize("kind", KINDS)


def fetched(service: Service) -> FetchedEndorsements:
    return FetchedEndorsements(plain_http, service.addresses)


@pytest.fixture
def amds() -> Iterator[Service]:
    with serving(everything(CpuKind.SNP)) as service:
        yield service


@pytest.fixture
def intels() -> Iterator[Service]:
    with serving(everything(CpuKind.TDX)) as service:
        yield service


def missing(source: FetchedEndorsements, report: CpuReport) -> tuple[Refusal, Reason]:
    with pytest.raises(VerificationRefused) as refused:
        source.snp(report, NOW) if report.kind is CpuKind.SNP else source.dcap(report, NOW)
    return refused.value.refusal, refused.value.reason


@every_kind
def test_a_host_and_its_gpu_are_accepted_with_what_the_vendors_services_say(kind: CpuKind) -> None:
    with serving(everything(kind)) as service:
        assert Trial(Host(kind, ("",)), source=fetched(service)).result().not_checked == ()


def test_amd_is_asked_for_the_key_of_this_chip_and_tcb_its_authorities_and_its_revocation_list(amds: Service) -> None:
    fetched(amds).snp(SNP_REPORT, NOW)
    assert amds.asked == [VCEK, "/vcek/v1/Milan/cert_chain", "/vcek/v1/Milan/crl"]


def test_turins_key_is_asked_for_by_eight_bytes_and_with_the_level_of_its_fmc() -> None:
    vendor = amd.Vendor(SnpProduct.TURIN)
    with serving(Service()) as service:
        report = CpuReport(kind=CpuKind.SNP, report=to_base64(vendor.report()))
        assert missing(fetched(service), report)[0] is Refusal.ENDORSEMENTS_MISSING
        chip = amd.CHIP[SnpProduct.TURIN][:8].hex()
        assert service.asked == [f"/vcek/v1/Turin/{chip}?blSPL=03&teeSPL=01&snpSPL=09&ucodeSPL=211&fmcSPL=05"]


def test_a_report_that_does_not_name_its_line_is_looked_for_in_each(amds: Service) -> None:
    report = CpuReport(kind=CpuKind.SNP, report=to_base64(amd.Vendor().report(2)))
    assert fetched(amds).snp(report, NOW).revocation_lists
    elsewhere = CpuReport(kind=CpuKind.SNP, report=to_base64(amd.Vendor().report(2, {0x1A0: bytes(range(64))})))
    assert missing(fetched(amds), elsewhere)[0] is Refusal.ENDORSEMENTS_MISSING
    assert [path.split("/")[3] for path in amds.asked[-2:]] == ["Milan", "Genoa"]  # Turin's TCB looks different


def test_a_report_of_no_known_line_is_told_apart(amds: Service) -> None:
    strange = CpuReport(kind=CpuKind.SNP, report=to_base64(amd.Vendor().report(changes={0x188: b"\x17\x31\x00"})))
    assert missing(fetched(amds), strange)[0] is Refusal.ENDORSEMENTS_MISSING
    assert amds.asked == []


def test_a_cloud_providers_key_is_not_asked_for() -> None:
    with serving(Service()) as service:
        report = CpuReport(kind=CpuKind.SNP, report=to_base64(amd.Vendor(kind=amd.SigningKey.VLEK).report()))
        assert missing(fetched(service), report) == (Refusal.ENDORSEMENTS_MISSING, Reason.ATTESTATION_INVALID)
        assert service.asked == []


def test_certificates_that_came_with_the_report_are_not_asked_for_but_the_list_is(amds: Service) -> None:
    vendor = amd.Vendor()
    brought = [amd.root_of(vendor), amd.leaf_of(vendor), amd.authority_of(vendor), vendor.revocation_list()]
    report = SNP_REPORT.model_copy(update={"certificates": tuple(map(to_base64, brought))})
    found = fetched(amds).snp(report, NOW)
    assert amds.asked == ["/vcek/v1/Milan/crl"]
    assert set(found.certificates) == set(brought[:3])
    assert found.revocation_lists == (amds.pages["/vcek/v1/Milan/crl"].body,)


def test_a_certificate_of_another_chip_that_came_with_the_report_is_passed_over(amds: Service) -> None:
    vendor = amd.Vendor()
    stale = vendor.leaf(extensions=vendor.amd_extensions(bytes([2, 1, 0, 0, 0, 0, 9, 211])))
    report = SNP_REPORT.model_copy(update={"certificates": (to_base64(stale), to_base64(amd.authority_of(vendor)))})
    assert amd.leaf_of(vendor) in fetched(amds).snp(report, NOW).certificates
    assert amds.asked[0] == VCEK


@pytest.mark.parametrize("status", [404, 503])
def test_a_revocation_list_that_is_not_given_is_a_failure_and_not_an_empty_list(amds: Service, status: int) -> None:
    amds.pages["/vcek/v1/Milan/crl"] = HttpReply(status, {}, b"no")
    assert missing(fetched(amds), SNP_REPORT) == (Refusal.ENDORSEMENTS_MISSING, UNAVAILABLE)


HTML = b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body>We will be back.</body></html>"


@every_kind
@pytest.mark.parametrize(
    "body", [HTML, b"{}", b"null", b"\0", b"[" * 5000], ids=["html", "{}", "null", "NUL", "nested"]
)
@pytest.mark.parametrize("status", [200, 404])
def test_a_page_that_is_no_endorsement_is_never_a_sites_fault(kind: CpuKind, body: bytes, status: int) -> None:
    """Whichever of the service's pages it stands in the place of."""
    for path in everything(kind).pages:
        service = everything(kind)
        service.pages[path] = HttpReply(status, dict(service.pages[path].headers), body)
        with serving(service):
            source = FirstOf([fetched(service)])
            outcome = Trial(Host(kind, ("",)), policy=policy(kind, ("",)), source=source).outcome()
        assert outcome == ("endorsements_missing", UNAVAILABLE), path


def test_a_refusal_names_the_document_that_caused_it(amds: Service) -> None:
    amds.pages["/vcek/v1/Milan/cert_chain"] = page(HTML)
    with pytest.raises(VerificationRefused, match=r"snp/Milan/vcek_chain\.pem"):
        fetched(amds).snp(SNP_REPORT, NOW)


def test_not_hearing_of_a_revocation_is_never_accepted_whatever_the_policy_lets_pass(amds: Service) -> None:
    amds.pages["/vcek/v1/Milan/crl"] = HttpReply(503, {}, b"busy")
    lenient = policy(CpuKind.SNP, accept_unchecked=["snp.revocation"])
    outcome = Trial(Host(CpuKind.SNP), policy=lenient, source=fetched(amds)).outcome()
    assert outcome == ("endorsements_missing", UNAVAILABLE)


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_a_service_in_trouble_is_unavailable(amds: Service, status: int) -> None:
    amds.pages[VCEK] = HttpReply(status, {}, b"sorry")
    assert missing(fetched(amds), SNP_REPORT) == (Refusal.ENDORSEMENTS_MISSING, UNAVAILABLE)


def test_an_empty_answer_is_none(amds: Service) -> None:
    amds.pages[VCEK] = page(b"")
    assert missing(fetched(amds), SNP_REPORT) == (Refusal.ENDORSEMENTS_MISSING, UNAVAILABLE)


def test_intels_documents_arrive_to_the_byte_as_they_were_signed(intels: Service) -> None:
    world = intel_of("tdx")
    content = parse_json(fetched(intels).dcap(cpu_report(CpuKind.TDX, bytes(64)), NOW).collateral or b"")
    document = world.document()
    for name in ("tcb_info", "qe_identity", "pck_crl_issuer_chain", "tcb_info_issuer_chain"):
        assert content[name] == document[name]
    assert content.keys() == document.keys()


def recorded() -> Path:
    return Path(os.environ.get("AEGIS_EVIDENCE_DIR", "AEGIS_EVIDENCE_DIR is not set"))


@pytest.mark.recorded
@pytest.mark.skipif(not os.environ.get("AEGIS_EVIDENCE_DIR"), reason="needs AEGIS_EVIDENCE_DIR")
def test_what_is_put_together_has_the_fields_of_recorded_collateral(intels: Service) -> None:
    made = parse_json(fetched(intels).dcap(cpu_report(CpuKind.TDX, bytes(64)), NOW).collateral or b"")
    found = parse_json((recorded() / "sgx" / "collateral.json").read_bytes())
    assert made.keys() == found.keys() - {"pck_certificate_chain"}
    assert {name: type(value) for name, value in made.items()} == {name: type(found[name]) for name in made}


def damaged(body: bytes) -> list[bytes]:
    return [b"{}", b"[]", body[:-1], body + b"x", body.replace(b'"signature":"', b'"signature":"00'), b"\xff" + body]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("path", ["tcb?fmspc=00A067110000", "qe/identity"])
def test_an_answer_that_is_no_signed_document_is_unusable(intels: Service, path: str, number: int) -> None:
    path = f"/tdx/certification/v4/{path}"
    intels.pages[path] = replace(intels.pages[path], body=damaged(intels.pages[path].body)[number])
    outcome = missing(fetched(intels), cpu_report(CpuKind.TDX, bytes(64)))
    assert outcome == (Refusal.ENDORSEMENTS_MISSING, UNAVAILABLE)


@pytest.mark.parametrize("path", ["tcb?fmspc=00A067110000", "qe/identity", "pckcrl?ca=platform&encoding=der"])
def test_an_answer_without_the_chain_of_its_issuer_is_unusable(intels: Service, path: str) -> None:
    (path,) = [known for known in intels.pages if known.endswith(f"/certification/v4/{path}")]
    intels.pages[path] = replace(intels.pages[path], headers={})
    outcome = missing(fetched(intels), cpu_report(CpuKind.TDX, bytes(64)))
    assert outcome == (Refusal.ENDORSEMENTS_MISSING, UNAVAILABLE)


def test_a_processor_packages_own_authority_is_asked_about_where_it_certified_the_platform(intels: Service) -> None:
    with pytest.raises(VerificationRefused):
        fetched(intels).get(DcapCollateral("sgx", "00a067110000", "processor"), NOW)
    assert intels.asked == ["/sgx/certification/v4/pckcrl?ca=processor&encoding=der"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"rim": 5}', b'{"rim": "not base64!"}'])
def test_an_answer_that_brings_no_manifest_is_unusable(amds: Service, body: bytes) -> None:
    amds.pages[f"/v1/rim/{DRIVER}"] = page(body)
    outcome = Trial(Host(CpuKind.SNP, ("",)), source=fetched(amds)).outcome()
    assert outcome == ("endorsements_missing", UNAVAILABLE)


def test_a_manifest_that_the_vendor_does_not_give_is_no_sites_fault(amds: Service) -> None:
    del amds.pages[f"/v1/rim/{DRIVER}"]
    outcome = Trial(Host(CpuKind.SNP, ("",)), source=fetched(amds)).outcome()
    assert outcome == ("endorsements_missing", UNAVAILABLE)


def test_a_revocation_that_the_responder_tells_of_is_refused(amds: Service) -> None:
    held = replace(nvidia.device_answers()[0], status=ocsp.OCSPCertStatus.REVOKED)
    amds.answers[held.certificates[held.index].serial_number] = held.der()
    assert Trial(Host(CpuKind.SNP, ("",)), source=fetched(amds)).refusal() == "revoked"


def test_the_responder_is_asked_about_every_certificate_but_roots_and_leaf(amds: Service) -> None:
    context = binding().context()
    gpus = (gpu_report(gpu_nonce(context)),)
    assert report_data(context, gpus)
    (found,) = fetched(amds).nvidia(gpus, NOW)
    assert found.revocation is not None
    assert len(found.revocation.responses) == 6
    assert amds.asked.count("/ocsp") == 6
