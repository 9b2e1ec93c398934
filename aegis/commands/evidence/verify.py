"""``aegis evidence verify``: checks that evidence is authentic and its platform in a good state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aegis.commands.evidence.answers import EXITS, answer, moment
from aegis.commands.evidence.options import FILE, Once, json_option, moment_option, refuse_length, report_options
from aegis.evidence import EvidenceKind

if TYPE_CHECKING:
    from aegis.evidence import EvidenceVerdict, PlatformPolicy


@click.command(short_help="Check the authenticity and platform state of evidence.", epilog=EXITS.format("authentic"))
@report_options(kind_required=True)
@click.option("--platform-policy", type=FILE, cls=Once, help="TOML file: the required state of the platform.")
@moment_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    kind: str,
    path: Path,
    endorsements: tuple[Path, ...],
    nonce: bytes | None,
    report_data: bytes | None,
    platform_policy: Path | None,
    now: int | None,
    as_json: bool,
) -> None:
    """Is evidence authentic, on a platform in a good state?

    Signature, chain, revocation, TCB, debug, privilege level. What was not checked is listed.

    \b
    --evidence      an SGX or TDX quote; a SEV-SNP report; an H100's report (binary, hex, or NVIDIA's
                    JSON list); or what `coreason-enclave attest` wrote, of which --kind says which part
    --endorsements  sgx, tdx: Intel's collateral (JSON)
                    snp: VCEK or VLEK, ASK or ASVK, ARK, revocation list (PEM or DER)
                    nvidia: chain (PEM), manifests (XML), OCSP answers (DER) or a result (JSON)
    --nonce         32 bytes: what a GPU's report covers; what a processor's report data begin with, and
                    zeros follow; or what `coreason-enclave attest --nonce` was given
    --platform-policy  the fields of [dcap], [snp] or [nvidia]: bare, in that table, or in that table below
                    [attestation]; left out, the default of each

    \b
    Example: aegis evidence verify --kind tdx --evidence quote.bin --endorsements collateral.json --json
    """
    from aegis.evidence import VerificationRequest
    from aegis.evidence import verify as verify_evidence

    of, at = EvidenceKind(kind), moment(now)
    refuse_length(of, report_data)
    policy = _platform_policy(of, platform_policy)

    def judge(content: bytes, files: tuple[bytes, ...]) -> EvidenceVerdict:
        return verify_evidence(VerificationRequest(of, policy, at, files, nonce, report_data), content)

    answer(ctx, kind, path, endorsements, judge, as_json=as_json)


def _platform_policy(kind: EvidenceKind, path: Path | None) -> PlatformPolicy:
    from aegis.evidence import read_policy
    from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy
    from coreason_enclave.attestation.verify.nvidia import NvidiaPlatformPolicy
    from coreason_enclave.attestation.verify.snp import SnpPlatformPolicy

    if kind is EvidenceKind.NVIDIA:
        return NvidiaPlatformPolicy() if path is None else read_policy(path, NvidiaPlatformPolicy, "nvidia")
    if kind is EvidenceKind.SNP:
        return SnpPlatformPolicy() if path is None else read_policy(path, SnpPlatformPolicy, "snp")
    return DcapPlatformPolicy() if path is None else read_policy(path, DcapPlatformPolicy, "dcap")
