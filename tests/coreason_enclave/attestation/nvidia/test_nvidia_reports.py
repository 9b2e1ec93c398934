from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from coreason_enclave.attestation.verify.nvidia import (
    GpuMode,
    NvidiaEndorsements,
    NvidiaEvidence,
    NvidiaPlatformPolicy,
    NvidiaRoots,
    NvidiaVerifier,
    verify_nvidia,
    verify_nvidia_list,
)
from coreason_enclave.attestation.verify.nvidia_chain import load_der, pin, verify_path
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from tests.coreason_enclave.attestation.nvidia.hierarchy import (
    FIELDS,
    FIRMWARE,
    NONCE,
    NOW,
    PDI,
    chain,
    composite_device_id,
    device_certificates,
    device_name,
    key,
    pem,
    report,
    sign,
    unsigned_report,
    verifier,
)

DEFAULT = NvidiaPlatformPolicy()
GENUINE = ((device_name(), False), (composite_device_id("rom"), False))
TWO_NAMES = x509.SubjectAlternativeName([*device_name(), *device_name(pdi="0000000000000001")])
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")


def verify(
    data: bytes | None = None,
    certificates: tuple[x509.Certificate, ...] | None = None,
    *,
    now: int = NOW,
    nonce: bytes | None = NONCE,
    policy: NvidiaPlatformPolicy = DEFAULT,
) -> Authentic:
    ends = NvidiaEndorsements(chain=pem(chain() if certificates is None else certificates))
    return verifier().verify(report() if data is None else data, ends, policy, now, nonce=nonce)


def refusal(*args: bytes, **kwargs: object) -> Refusal:
    with pytest.raises(VerificationRefused) as refused:
        verify(*args, **kwargs)  # type: ignore[arg-type]
    return refused.value.refusal


def reissued(index: int, **changed: object) -> tuple[x509.Certificate, ...]:
    """The usual chain with one certificate made anew, wrong in the named parts."""
    parts = list(device_certificates())
    parts[index] = replace(parts[index], **changed)  # type: ignore[arg-type]
    made = list(chain())
    made[index] = parts[index].make()
    return tuple(made)


def entry(
    data: bytes, certificates: tuple[x509.Certificate, ...], nonce: bytes = NONCE, **changed: str
) -> dict[str, str]:
    return {
        "arch": "HOPPER",
        "certificate": base64.b64encode(pem(certificates)).decode(),
        "evidence": base64.b64encode(data).decode(),
        "nonce": nonce.hex(),
        **changed,
    }


def listed(*entries: Mapping[str, object]) -> bytes:
    return json.dumps(list(entries)).encode()


# --- what is accepted ---------------------------------------------------------------------------------------------


def test_a_report_of_our_own_hierarchy_is_authentic_and_says_what_it_did_not_check() -> None:
    verdict = verify()
    assert verdict.kind == "nvidia"
    assert verdict.report_data == NONCE
    assert verdict.measurements["measurement_07"] == hashlib.sha384(b"\x07").hexdigest()
    assert len(verdict.measurements) == 64
    assert verdict.claims["driver_version"] == "550.144.03"
    assert verdict.claims["vbios_version"] == "96.00.A5.00.01"
    assert verdict.claims["mode"] == "single_gpu"
    assert verdict.claims["pdi"] == PDI.lower()
    assert verdict.claims["firmware_identity"] == FIRMWARE.hex()
    assert verdict.not_checked == ("revocation", "measurements", "confidential_computing_mode", "developer_tools")
    json.dumps(dict(verdict.claims))


def test_without_a_nonce_of_ones_own_freshness_is_listed_as_not_checked() -> None:
    assert "nonce" in verify(nonce=None).not_checked


def test_the_platform_is_the_device_and_not_its_firmware() -> None:
    """Another firmware gets another leaf from the boot ROM: the pinned identity has to outlive that."""
    other = hashlib.sha384(b"a newer firmware").digest()
    made = (device_certificates(firmware=other)[0].make(), *chain()[1:])
    newer = verify(report(fields={**FIELDS, 20: other}), made)
    assert newer.platform_id == verify().platform_id
    assert verify(report(who="two"), chain("two")).platform_id != newer.platform_id


@pytest.mark.parametrize("form", [bytes.hex, lambda data: data.hex().upper(), lambda data: data.hex() + "\n"])
def test_a_report_in_hex_is_the_same_report(form: object) -> None:
    assert verify(form(report()).encode()).report_data == NONCE  # type: ignore[operator]


def test_the_list_form_carries_its_chain() -> None:
    verdict = verifier().verify(listed(entry(report(), chain())), NvidiaEndorsements(), DEFAULT, NOW, nonce=NONCE)
    assert verdict.report_data == NONCE


def test_a_machine_with_two_gpus_has_two_verdicts_and_one_gpu_does_not_count_twice() -> None:
    two = listed(entry(report(), chain()), entry(report(who="two"), chain("two")))
    verdicts = verifier().verify_all(two, NvidiaEndorsements(), DEFAULT, NOW, nonce=NONCE)
    assert len({verdict.platform_id for verdict in verdicts}) == 2
    twice = listed(entry(report(), chain()), entry(report(), chain()))
    with pytest.raises(VerificationRefused, match="more than once"):
        verifier().verify_all(twice, NvidiaEndorsements(), DEFAULT, NOW, nonce=NONCE)
    with pytest.raises(VerificationRefused, match="2 GPUs"):
        verifier().verify(two, NvidiaEndorsements(), DEFAULT, NOW, nonce=NONCE)


def test_an_old_driver_reports_neither_firmware_nor_mode_and_both_are_listed() -> None:
    old = {number: value for number, value in FIELDS.items() if number < 20}
    verdict = verify(report(fields=old))
    assert "firmware_identity" in verdict.not_checked
    assert verdict.claims["mode"] is None


# --- only the pinned roots ----------------------------------------------------------------------------------------


def test_a_driver_without_a_mode_says_protected_pcie_in_a_field_of_its_own() -> None:
    fields = {number: value for number, value in FIELDS.items() if number != 36}
    protected = verify(report(fields={**fields, 21: b"\xaa"}))
    assert protected.claims["mode"] == "protected_pcie"
    assert "nvswitches" in protected.not_checked
    assert verify(report(fields=fields)).claims["mode"] is None
    single = NvidiaPlatformPolicy(modes=(GpuMode.SINGLE_GPU,))
    assert refusal(report(fields={**fields, 21: b"\xaa"}), policy=single) is Refusal.PLATFORM


def test_a_hierarchy_with_the_vendors_names_is_nothing_to_the_product() -> None:
    ends = NvidiaEndorsements(chain=pem(chain()))
    with pytest.raises(VerificationRefused) as refused:
        verify_nvidia(report(), ends, DEFAULT, NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.CHAIN
    with pytest.raises(VerificationRefused) as refused:
        verify_nvidia_list(listed(entry(report(), chain())), NvidiaEndorsements(), DEFAULT, NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.CHAIN


def test_a_root_with_the_same_name_and_key_but_another_certificate_is_not_the_root() -> None:
    assert refusal(None, (*chain()[:-1], device_certificates()[-1].make())) is Refusal.CHAIN  # type: ignore[arg-type]


# --- what is refused: the report ----------------------------------------------------------------------------------


def test_another_nonce_than_the_one_sent_is_refused() -> None:
    assert refusal(nonce=bytes(32)) is Refusal.NONCE
    assert refusal(nonce=NONCE[:31]) is Refusal.NONCE
    assert refusal(nonce=b"") is Refusal.NONCE


def test_a_list_that_states_another_nonce_than_its_report_is_refused() -> None:
    data = listed(entry(report(), chain(), nonce=bytes(32)))
    with pytest.raises(VerificationRefused) as refused:
        verifier().verify(data, NvidiaEndorsements(), DEFAULT, NOW, nonce=None)
    assert refused.value.refusal is Refusal.NONCE


def test_a_replayed_report_is_refused_although_its_list_agrees_with_it() -> None:
    data = listed(entry(report(nonce=bytes(32)), chain(), nonce=bytes(32)))
    with pytest.raises(VerificationRefused) as refused:
        verifier().verify(data, NvidiaEndorsements(), DEFAULT, NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.NONCE


def _flips(data: bytes, *, dense: bool) -> list[tuple[int, int]]:
    """Every bit, or one bit a byte with the insides of the digests thinned out."""
    if dense:
        return [(at, bit) for at in range(len(data)) for bit in range(8)]
    digests = range(45, 45 + 64 * 55)
    return [(at, at % 8) for at in range(len(data)) if at not in digests or (at - 45) % 55 < 8 or at % 11 == 0]


def _accepted_after(data: bytes, flips: list[tuple[int, int]]) -> list[tuple[int, int]]:
    accepted = []
    for at, bit in flips:
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        try:
            verify(bytes(changed), nonce=None)
        except VerificationRefused:
            continue
        accepted.append((at, bit))
    return accepted


def test_no_byte_of_a_report_can_be_changed() -> None:
    data = report()
    assert _accepted_after(data, _flips(data, dense=False)) == []


@pytest.mark.slow
@pytest.mark.timeout(900)  # every bit: some 100 s on an idle core
def test_no_bit_of_a_report_can_be_changed() -> None:
    data = report()
    assert _accepted_after(data, _flips(data, dense=True)) == []


def test_no_part_of_a_certificate_can_be_changed() -> None:
    assert _accepted_chains(lambda size: [(at, at % 8) for at in range(0, size, 3)]) == []


@pytest.mark.slow
def test_no_bit_of_a_certificate_can_be_changed() -> None:
    assert _accepted_chains(lambda size: [(at, bit) for at in range(size) for bit in range(8)]) == []


def _accepted_chains(flips: Callable[[int], list[tuple[int, int]]]) -> list[tuple[int, int, int]]:
    accepted, document = [], report()
    for index, certificate in enumerate(chain()):
        der = certificate.public_bytes(Encoding.DER)
        for at, bit in flips(len(der)):
            changed = bytearray(der)
            changed[at] ^= 1 << bit
            block = base64.encodebytes(bytes(changed))
            text = b"-----BEGIN CERTIFICATE-----\n" + block + b"-----END CERTIFICATE-----\n"
            whole = pem(chain()[:index]) + text + pem(chain()[index + 1 :])
            try:
                verifier().verify(document, NvidiaEndorsements(chain=whole), DEFAULT, NOW, nonce=NONCE)
            except VerificationRefused:
                continue
            accepted.append((index, at, bit))
    return accepted


@pytest.mark.parametrize(
    "length", [0, 1, 4, 36, 37, 41, 45, 52, 100, 45 + 64 * 55, 45 + 64 * 55 + 32, -97, -96, -95, -1]
)
def test_a_truncated_report_is_malformed(length: int) -> None:
    assert refusal(report()[:length]) is Refusal.MALFORMED


def test_bytes_after_the_report_are_refused() -> None:
    assert refusal(report() + b"\0") is Refusal.MALFORMED
    assert refusal(report().hex().encode() + b"00") is Refusal.MALFORMED


@pytest.mark.parametrize("tail", [b"zz", b"a", b"\xff", b"\xc3\xa9", b"AB", b"\n00"])
def test_what_is_hex_at_first_and_something_else_further_on_is_refused(tail: bytes) -> None:
    for length in (report().hex().encode(), b"ab" * 8194):
        assert refusal(length + tail) in (Refusal.MALFORMED, Refusal.OVERSIZED)


def test_an_oversized_report_is_refused_unread() -> None:
    assert refusal(report() + bytes(8192)) is Refusal.OVERSIZED
    assert refusal(bytes(1 << 20)) is Refusal.OVERSIZED
    assert refusal(b"[" + b" " * (1 << 19)) is Refusal.OVERSIZED
    ends = NvidiaEndorsements(chain=pem(chain()) + b"\n" * (1 << 15))
    with pytest.raises(VerificationRefused) as refused:
        verifier().verify(report(), ends, DEFAULT, NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.OVERSIZED


def test_a_report_signed_by_another_gpu_is_refused() -> None:
    assert refusal(report(who="two")) is Refusal.SIGNATURE
    assert refusal(report(), chain("two")) is Refusal.SIGNATURE  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [0, 1])
def test_no_certificate_of_another_gpus_fits_into_a_chain(index: int) -> None:
    mixed = list(chain())
    mixed[index] = chain("two")[index]
    assert refusal(None, tuple(mixed)) is Refusal.CHAIN  # type: ignore[arg-type]


def test_a_signature_of_zeros_is_refused() -> None:
    assert refusal(unsigned_report() + bytes(96)) is Refusal.SIGNATURE


def test_a_signature_with_another_hash_is_refused() -> None:
    message = unsigned_report()
    r, s = decode_dss_signature(key("leaf").sign(message, ec.ECDSA(hashes.SHA256())))
    assert refusal(message + r.to_bytes(48) + s.to_bytes(48)) is Refusal.SIGNATURE


def test_a_report_that_names_another_firmware_than_its_certificate_is_refused() -> None:
    other = hashlib.sha384(b"another firmware").digest()
    assert refusal(report(fields={**FIELDS, 20: other})) is Refusal.FIRMWARE_IDENTITY


# --- what is refused: signed, but not what an H100 says -----------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({**FIELDS, 99: b""}, Refusal.MALFORMED),
        ({**FIELDS, 34: b"\2\0"}, Refusal.MALFORMED),
        ({**FIELDS, 20: FIRMWARE[:47]}, Refusal.MALFORMED),
        ({**FIELDS, 20: b""}, Refusal.MALFORMED),
        ({**FIELDS, 3: b""}, Refusal.MALFORMED),
        ({**FIELDS, 3: b"550\n144"}, Refusal.MALFORMED),
        ({**FIELDS, 6: b"\0"}, Refusal.MALFORMED),
        ({**FIELDS, 17: b"<script>"}, Refusal.MALFORMED),
        ({**FIELDS, 36: b"\3\0"}, Refusal.CONFIDENTIAL_COMPUTING_OFF),
        ({**FIELDS, 36: b""}, Refusal.CONFIDENTIAL_COMPUTING_OFF),
    ],
)
def test_signed_nonsense_is_refused(fields: dict[int, bytes], expected: Refusal) -> None:
    assert refusal(report(fields=fields)) is expected


def test_a_report_with_a_field_twice_or_fields_that_overrun_is_malformed() -> None:
    for extra in (b"\x15\0\x01\0\xaa", b"\x07\0\xff\xff", b"\x07\0\x01"):
        whole = unsigned_report()
        fields_length = len(unsigned_report()) - len(unsigned_report(fields={}))
        at = len(whole) - fields_length - 2
        message = whole[:at] + (fields_length + len(extra)).to_bytes(2, "little") + whole[at + 2 :] + extra
        assert refusal(message + sign(key("leaf"), message)) is Refusal.MALFORMED


def test_a_report_without_all_its_measurements_is_malformed() -> None:
    assert refusal(report(measurements=[bytes(48)] * 63)) is Refusal.MALFORMED


@pytest.mark.parametrize("at", [0, 1, 2, 3, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51])
def test_a_constant_of_the_protocol_that_differs_is_malformed_even_when_signed(at: int) -> None:
    message = bytearray(unsigned_report())
    message[at] ^= 0x80
    assert refusal(bytes(message) + sign(key("leaf"), bytes(message))) is Refusal.MALFORMED


# --- what is refused: certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(5))
def test_a_chain_holds_only_inside_the_window_of_each_certificate(index: int) -> None:
    """Before, at the edges of, inside and after; every certificate has its own turn at being the tightest."""
    parts = [
        replace(part, first=NOW - 100, last=NOW + 100) if n == index else part
        for n, part in enumerate(device_certificates())
    ]
    made = tuple(part.make() for part in parts)
    own = NvidiaVerifier(NvidiaRoots(made[-1], made[-1]))
    ends = NvidiaEndorsements(chain=pem(made))
    for now in (NOW - 100, NOW, NOW + 100):
        assert own.verify(report(), ends, DEFAULT, now, nonce=NONCE).report_data == NONCE
    for now in (NOW - 101, NOW + 101, 0, -(10**20), 10**20):
        with pytest.raises(VerificationRefused) as refused:
            own.verify(report(), ends, DEFAULT, now, nonce=NONCE)
        assert refused.value.refusal is Refusal.NOT_VALID_NOW


@pytest.mark.parametrize(
    ("index", "changed"),
    [
        (1, {"ca": False}),
        (1, {"ca": False, "signs_certificates": True}),
        (3, {"ca": False, "signs_certificates": True}),
        (0, {"algorithm": hashes.SHA256()}),
        (0, {"extensions": (*GENUINE, (UNKNOWN, True))}),
        (2, {"ca": False, "signs_documents": True}),
        (2, {"path_length": 0}),
        (3, {"path_length": 1}),
        (1, {"signer": "somebody"}),
        (2, {"signer": "somebody"}),
        (3, {"signer": "somebody"}),
        (0, {"signer": "somebody"}),
        (0, {"issuer": "somebody"}),
        (0, {"ca": True, "signs_certificates": False}),
        (0, {"signs_certificates": True}),
        (1, {"signs_certificates": False}),
        (0, {"signs_documents": False}),
        (2, {"algorithm": hashes.SHA256()}),
        (0, {"curve": ec.SECP256R1()}),
        (3, {"extensions": ((UNKNOWN, True),)}),
        (0, {"extensions": ()}),
        (0, {"extensions": ((device_name(), False),)}),
        (0, {"extensions": ((composite_device_id("rom"), False),)}),
        (0, {"extensions": ((device_name(), False), (composite_device_id("romtwo"), False))}),
        (0, {"extensions": ((device_name(), False), (composite_device_id("rom", FIRMWARE + b"\0"), False))}),
        (0, {"extensions": ((TWO_NAMES, False), GENUINE[1])}),
        (0, {"extensions": ((x509.SubjectAlternativeName([x509.DNSName("gpu")]), False), GENUINE[1])}),
        (0, {"extensions": ((device_name(pdi="48B02DF44660DA0x"), False), (composite_device_id("rom"), False))}),
    ],
)
def test_a_certificate_that_is_wrong_in_one_part_breaks_the_chain(index: int, changed: dict[str, object]) -> None:
    assert refusal(None, reissued(index, **changed)) is Refusal.CHAIN  # type: ignore[arg-type]


def test_another_chip_than_an_h100_is_the_wrong_kind() -> None:
    extensions = ((device_name("GB100"), False), (composite_device_id("rom"), False))
    assert refusal(None, reissued(0, extensions=extensions)) is Refusal.WRONG_KIND  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [slice(0, 0), slice(0, 1), slice(0, 4), slice(1, 5), slice(None, None, -1)])
def test_a_chain_of_other_than_five_certificates_in_order_is_refused(keep: slice) -> None:
    assert refusal(None, chain()[keep]) in (Refusal.CHAIN, Refusal.MALFORMED)  # type: ignore[arg-type]


def test_no_chain_at_all_leads_to_a_root() -> None:
    for nothing in ((), (chain()[-1],)):
        with pytest.raises(VerificationRefused) as refused:
            verify_path(nothing, chain()[-1], NOW, "nobody")
        assert refused.value.refusal is Refusal.CHAIN


def test_a_root_in_the_package_that_is_not_the_pinned_one_is_refused() -> None:
    root = chain()[-1]
    digest = hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()
    assert pin(pem([root]), digest) == root
    for other in (digest[:-1] + ("0" if digest[-1] != "0" else "1"), "", digest.upper()):
        with pytest.raises(VerificationRefused) as refused:
            pin(pem([root]), other)
        assert refused.value.refusal is Refusal.CHAIN


def test_a_chain_that_names_its_root_twice_is_refused() -> None:
    assert refusal(None, (*chain(), chain()[-1])) is Refusal.CHAIN  # type: ignore[arg-type]


def test_a_signature_has_one_encoding() -> None:
    """Parsers take a signature whose last bit is said not to count, where that bit happens to be zero."""
    part = device_certificates()[1]
    even = next(c for c in (part.make() for _ in range(200)) if c.signature[-1] % 2 == 0)
    der = even.public_bytes(Encoding.DER)
    other = der.replace(b"\0" + even.signature, b"\1" + even.signature)
    assert x509.load_der_x509_certificate(other).signature == even.signature
    assert load_der(der, "it") == even
    with pytest.raises(VerificationRefused):
        load_der(other, "it")


def test_the_chain_has_to_come_from_somewhere_and_from_one_place() -> None:
    with pytest.raises(VerificationRefused) as refused:
        verifier().verify(report(), NvidiaEndorsements(), DEFAULT, NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.ENDORSEMENTS_MISSING
    ends = NvidiaEndorsements(chain=pem(chain("two")))
    with pytest.raises(VerificationRefused) as refused:
        verifier().verify(NvidiaEvidence(report(), chain()), ends, DEFAULT, NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.ENDORSEMENTS_MISMATCH


@pytest.mark.parametrize(
    "text",
    [b"", b"x", b"note\n" + pem(chain()), pem(chain()) + b"note", pem(chain()).replace(b"CERTIFICATE", b"PUBLIC KEY")],
)
def test_a_chain_with_anything_beside_certificates_is_malformed(text: bytes) -> None:
    with pytest.raises(VerificationRefused) as refused:
        verifier().verify(report(), NvidiaEndorsements(chain=text), DEFAULT, NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.MALFORMED


# --- what is refused: the list form -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"[1]",
        b"[",
        b"[null]",
        b'[],"x":[]',
        listed(entry(report(), chain())) + b',"more":1',
        listed(entry(report(), chain())) + b',"gpus":[]',
        b"[" * 100_000,
        listed(entry(report(), chain(), arch="BLACKWELL")),
        listed({**entry(report(), chain()), "status": "trusted"}),
        listed(entry(report(), chain(), nonce=bytes(31))),
        listed(entry(report(), chain(), evidence="%%%")),
        listed(entry(report(), chain(), evidence="é")),
        listed(entry(report(), chain(), certificate="QQ==")),
        listed(*[entry(report(), chain())] * 17),
    ],
)
def test_a_list_in_another_form_is_malformed(data: bytes) -> None:
    with pytest.raises(VerificationRefused) as refused:
        verifier().verify_all(data, NvidiaEndorsements(), DEFAULT, NOW, nonce=NONCE)
    assert refused.value.refusal is Refusal.MALFORMED


# --- policy -------------------------------------------------------------------------------------------------------


def test_versions_below_the_floor_are_out_of_date() -> None:
    assert verify(policy=NvidiaPlatformPolicy(min_driver_version="550.144.03"))
    assert verify(policy=NvidiaPlatformPolicy(min_driver_version="550.54"))
    assert verify(policy=NvidiaPlatformPolicy(min_vbios_version="96.00.9F.00.04"))
    for floor in ({"min_driver_version": "550.145"}, {"min_vbios_version": "96.00.AF.00.01"}):
        assert refusal(policy=NvidiaPlatformPolicy.model_validate(floor)) is Refusal.TCB_OUT_OF_DATE


def test_a_mode_that_the_policy_does_not_list_is_refused() -> None:
    several = report(fields={**FIELDS, 36: b"\2\0"})
    assert "nvswitches" in verify(several).not_checked
    assert refusal(several, policy=NvidiaPlatformPolicy(modes=(GpuMode.SINGLE_GPU,))) is Refusal.PLATFORM
    assert refusal(policy=NvidiaPlatformPolicy(modes=())) is Refusal.PLATFORM


def test_a_policy_with_a_field_that_does_not_exist_is_refused() -> None:
    for document in ({"allow_revoked": True}, {"min_driver_version": "new"}, {"min_vbios_version": "96"}):
        with pytest.raises(ValueError, match=r"allow_revoked|must be"):
            NvidiaPlatformPolicy.model_validate(document)
