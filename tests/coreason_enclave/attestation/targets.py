"""Everything that reads evidence or endorsements, with genuine input: what the fuzzer damages."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from coreason_enclave.attestation.verify.dcap import DcapEndorsements, DcapPlatformPolicy, verify_sgx, verify_tdx
from coreason_enclave.attestation.verify.dcap.quote import parse_quote
from coreason_enclave.attestation.verify.nvidia import (
    NvidiaEndorsements,
    NvidiaPlatformPolicy,
    parse_nvidia_evidence,
    verify_nvidia,
)
from coreason_enclave.attestation.verify.nvidia.opaque import parse_opaque
from coreason_enclave.attestation.verify.nvidia.roots import pinned_roots
from coreason_enclave.attestation.verify.nvidia.spdm import parse_report as parse_spdm
from coreason_enclave.attestation.verify.rim import verify_manifest_under
from coreason_enclave.attestation.verify.snp import SnpEndorsements, SnpPlatformPolicy, SnpProduct, verify_snp
from coreason_enclave.attestation.verify.snp import parse_report as parse_snp
from coreason_enclave.attestation.verify.verdict import Authentic
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd
from tools.fuzz_attestation import Target

NOW = 1_780_000_000
SNP, GPU = SnpPlatformPolicy(), NvidiaPlatformPolicy()
DCAP = DcapPlatformPolicy(
    accepted_advisories=("INTEL-SA-00289", "INTEL-SA-00615"),
    allow_dynamic_platform=True,
    allow_cached_keys=True,
    allow_smt=True,
)


def all_targets(recorded: str | None) -> list[Target]:
    made = [*_snp(), *_dcap(), *_nvidia(), *_resigned()]
    return [*made, *_parsers(made), *(_recorded(Path(recorded)) if recorded else ())]


def same(found: object, expected: object) -> bool:
    """Believed of damaged bytes only where the verdict is to the letter the genuine one: damage outside of it."""
    return found == expected


def no_more(found: object, expected: object) -> bool:
    """Damaged endorsements may be fewer, and more is then not checked; nothing else may change."""
    assert isinstance(found, Authentic)
    assert isinstance(expected, Authentic)
    unchanged = ("kind", "report_data", "measurements", "platform_id")
    return set(found.not_checked) >= set(expected.not_checked) and all(
        getattr(found, name) == getattr(expected, name) for name in unchanged
    )


def anything(found: object, expected: object) -> bool:
    """Parsers believe nothing yet, and what is signed anew is genuine: only how they fail is looked at."""
    return True


def _snp() -> Iterator[Target]:
    for product, version in ((SnpProduct.MILAN, 2), (SnpProduct.GENOA, 3), (SnpProduct.TURIN, 5)):
        vendor = amd.Vendor(product)
        report, certificates = vendor.report(version), vendor.endorsements().certificates
        listed = vendor.revocation_list(77)

        def verify(data: bytes, files: tuple[bytes, ...], *, of: bytes | None = None) -> Authentic:
            return amd.verifier().verify(of or data, SnpEndorsements.from_files(files), SNP, NOW, report_data=None)

        def report_only(data: bytes, files: tuple[bytes, ...] = certificates) -> Authentic:
            return verify(data, files)

        yield Target(f"snp report {product}", report, report_only, same)
        for index, what in enumerate(("key", "authority", "root")):

            def certificate(
                data: bytes, i: int = index, files: tuple[bytes, ...] = certificates, report: bytes = report
            ) -> Authentic:
                return verify(report, (*files[:i], data, *files[i + 1 :]))

            yield Target(f"snp {what} certificate {product}", certificates[index], certificate, same)

        def revocation(data: bytes, files: tuple[bytes, ...] = certificates, report: bytes = report) -> Authentic:
            return verify(report, (*files, data))

        yield Target(f"snp revocation list {product}", listed, revocation, same)


def _dcap() -> Iterator[Target]:
    for kind, versions in (("sgx", (3,)), ("tdx", (4, 5))):
        world = intel.Intel(kind=kind)
        collateral = world.endorsements()
        for version in versions:
            genuine = world.quote(version=version)

            def quote(
                data: bytes, world: intel.Intel = world, ends: DcapEndorsements = collateral, kind: str = kind
            ) -> Authentic:
                return world.verifier.verify(kind, data, ends, DCAP, intel.NOW)

            yield Target(f"{kind} quote version {version}", genuine, quote, same)

        def document(data: bytes, world: intel.Intel = world, genuine: bytes = genuine, kind: str = kind) -> Authentic:
            return world.verifier.verify(kind, genuine, DcapEndorsements(data), DCAP, intel.NOW)

        assert collateral.collateral is not None
        yield Target(f"{kind} collateral", collateral.collateral, document, same)


def _nvidia() -> Iterator[Target]:
    report, chain = nvidia.report(), nvidia.pem(nvidia.chain())
    manifests = (nvidia.driver_manifest(), nvidia.vbios_manifest())
    answer = nvidia.device_answers()[0].der()
    listed = json.dumps(
        [
            {
                "arch": "HOPPER",
                "certificate": _base64(chain),
                "evidence": _base64(report),
                "nonce": nvidia.NONCE.hex(),
            }
        ]
    ).encode()

    def verify(data: bytes, files: tuple[bytes, ...]) -> Authentic:
        ends = NvidiaEndorsements.from_files(files)
        return nvidia.verifier().verify(data, ends, GPU, NOW, nonce=nvidia.NONCE)

    yield Target("nvidia report", report, lambda data: verify(data, (chain, *manifests)), same)
    yield Target("nvidia report in hex", report.hex().encode(), lambda data: verify(data, (chain,)), same)
    yield Target("nvidia list", listed, lambda data: verify(data, ()), same)
    yield Target("nvidia chain", chain, lambda data: verify(report, (data,)), same)
    yield Target("nvidia answer", answer, lambda data: verify(report, (chain, data)), no_more)
    for index, name in enumerate(("driver", "vbios")):
        yield Target(
            f"nvidia {name} manifest",
            manifests[index],
            lambda data, other=manifests[1 - index]: verify(report, (chain, other, data)),
            no_more,
        )
    yield Target(
        "manifest alone",
        manifests[0],
        lambda data: verify_manifest_under(nvidia.manifest_chain()[-1], data, NOW),
        same,
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _resigned() -> Iterator[Target]:
    """Damage under a good signature: what comes after the signature has to fail as cleanly."""
    vendor, world = amd.Vendor(), intel.Intel(kind="tdx")
    ends, collateral, chain = vendor.endorsements(), world.endorsements(), nvidia.pem(nvidia.chain())

    def snp(data: bytes) -> Authentic:
        signed = vendor.sign(data[: amd.SIGNED].ljust(amd.SIGNED, b"\0") + bytes(0x4A0 - amd.SIGNED))
        return amd.verifier().verify(signed, ends, SNP, NOW, report_data=None)

    def gpu(data: bytes) -> Authentic:
        signed = data + nvidia.sign(nvidia.key("leaf"), data)
        return nvidia.verifier().verify(signed, NvidiaEndorsements(chain), GPU, NOW, nonce=None)

    def quote(data: bytes) -> Authentic:
        return world.verifier.verify("tdx", world.quote(data[:584].ljust(584, b"\0")), collateral, DCAP, intel.NOW)

    def document(data: bytes) -> Authentic:
        text = data.decode("ascii", "ignore").replace("\0", "")
        signature = world.party("signing").sign(text.encode()).hex()
        changed = world.endorsements(tcb_info=text, tcb_info_signature=signature)
        return world.verifier.verify("tdx", world.quote(), changed, DCAP, intel.NOW)

    yield Target("snp report signed anew", vendor.report()[: amd.SIGNED], snp, anything)
    yield Target("nvidia report signed anew", nvidia.unsigned_report(), gpu, anything)
    yield Target("tdx report signed anew", intel.td_report(), quote, anything)
    yield Target("tdx TCB info signed anew", world.tcb_info().encode(), document, anything)


def _parsers(genuine: list[Target]) -> Iterator[Target]:
    inputs = {target.name: target.genuine for target in genuine}
    parsers: dict[str, tuple[Callable[[bytes], object], str]] = {
        "snp report": (parse_snp, "snp report Milan"),
        "quote": (parse_quote, "tdx quote version 5"),
        "gpu report": (parse_spdm, "nvidia report"),
        "gpu list": (parse_nvidia_evidence, "nvidia list"),
        "snp files": (lambda data: SnpEndorsements.from_files([data, data]), "snp revocation list Milan"),
        "nvidia files": (lambda data: NvidiaEndorsements.from_files([data]), "nvidia answer"),
    }
    for name, (parse, source) in parsers.items():
        yield Target(f"parser: {name}", inputs[source], parse, anything)
    yield Target("parser: fields", nvidia.opaque(nvidia.FIELDS), parse_opaque, anything)
    statements = b'{"version":1,"kind":"nvidia-ocsp","statements":[{"serial":"3e8","status":"on_hold"}]}'
    yield Target("parser: statements", statements, lambda data: NvidiaEndorsements.from_files([data]), anything)


def _recorded(folder: Path) -> Iterator[Target]:
    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    for name in ("milan", "genoa"):
        files = [read(f"snp/{name}_{part}.pem") for part in ("vcek", "ask", "ark")]

        def snp(data: bytes, ends: SnpEndorsements = SnpEndorsements.from_files(files)) -> Authentic:  # noqa: B008
            return verify_snp(data, ends, SNP, NOW, report_data=None)

        yield Target(f"recorded {name} report", read(f"snp/{name}_report.bin"), snp, same)
    sgx_ends = DcapEndorsements(read("sgx/collateral.json"))
    tdx_ends = DcapEndorsements(read("tdx/quote_v4_collateral.json"))
    sgx, tdx = read("sgx/quote.bin"), read("tdx/quote_v4.bin")
    gpu, rim = read("nvidia/hopper_evidence.json"), read("nvidia/driver_rim_550.144.03.xml")
    sgx_at, tdx_at = 1_751_624_924, 1_751_624_191
    yield Target("recorded sgx quote", sgx, lambda data: verify_sgx(data, sgx_ends, DCAP, sgx_at), same)
    yield Target("recorded tdx quote", tdx, lambda data: verify_tdx(data, tdx_ends, DCAP, tdx_at), same)
    yield Target(
        "recorded tdx collateral",
        tdx_ends.collateral or b"",
        lambda data: verify_tdx(tdx, DcapEndorsements(data), DCAP, tdx_at),
        same,
    )
    nonce = parse_spdm(parse_nvidia_evidence(gpu)[0].report).nonce
    yield Target(
        "recorded gpu", gpu, lambda data: verify_nvidia(data, NvidiaEndorsements(), GPU, NOW, nonce=nonce), same
    )
    yield Target(
        "recorded manifest", rim, lambda data: verify_manifest_under(pinned_roots().manifests, data, NOW), same
    )
