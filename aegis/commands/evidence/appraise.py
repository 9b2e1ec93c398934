"""``aegis evidence appraise``: checks evidence against an appraisal policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aegis.commands.evidence.answers import EXITS, Judge, answer, moment
from aegis.commands.evidence.options import (
    FILE,
    Hex,
    Once,
    Subject,
    json_option,
    moment_option,
    refuse_length,
    report_options,
)
from aegis.evidence import EvidenceKind
from coreason_enclave.attestation import Role

if TYPE_CHECKING:
    from aegis.evidence import EvidenceVerdict, VerificationRequest
    from coreason_enclave.attestation import AttestationPolicy, Binding


@click.command(short_help="Decide whether a policy accepts the evidence.", epilog=EXITS.format("accepted"))
@report_options(kind_required=False)
@click.option("--policy", "policy_path", type=FILE, cls=Once, required=True, help="TOML file: the appraisal policy.")
@click.option("--subject", type=Subject(), cls=Once, help="Participant that owns the machine (name in the policy).")
@click.option("--public-key", type=Hex(32), cls=Once, metavar="HEX", help="For a whole host: its Ed25519 key.")
@click.option("--kem-key", type=Hex(32), cls=Once, metavar="HEX", help="For a whole host: its X25519 key.")
@click.option("--job-digest", type=Hex(32), cls=Once, metavar="HEX", help="For a whole host: SHA-256 of the job.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    cls=Once,
    help="For a whole host: its role in the federation  [site].",
)
@moment_option
@json_option
@click.pass_context
def appraise(
    ctx: click.Context,
    /,
    kind: str | None,
    path: Path,
    endorsements: tuple[Path, ...],
    nonce: bytes | None,
    report_data: bytes | None,
    policy_path: Path,
    now: int | None,
    as_json: bool,
    subject: str | None,
    role: str | None,
    **host: bytes | None,
) -> None:
    """Is evidence acceptable to a policy: its code, its machine and its binding included?

    What `verify` checks, and the policy's reference values and enrolled machines. Whatever is left unchecked is
    refused, unless it is a revocation that the policy names. Simulated evidence is refused always.

    With --kind: one report, or a host's GPUs, bound to --nonce or --report-data and nothing else. Without: a whole
    host's evidence, as a site shows it in a federation: bound to --nonce, --public-key, --kem-key, --subject and
    --job-digest, processor and GPUs to each other.

    \b
    --policy        the fields of [attestation], bare or in that table

    \b
    Example: aegis evidence appraise --evidence site.json --endorsements chain.pem --policy policy.toml
             --subject hospital-a --nonce 5f… --public-key 31… --kem-key 0c… --job-digest e3…
    """
    from aegis.evidence import VerificationRequest, platform_policy, read_policy
    from coreason_enclave.attestation import AttestationPolicy

    policy, at = read_policy(policy_path, AttestationPolicy), moment(now)
    if kind is None:
        judge = _of_host(policy, _binding(role, {"nonce": nonce, "subject": subject, **host}, report_data), at)
    else:
        _refuse_binding({"role": role, **host})
        refuse_length(EvidenceKind(kind), report_data)
        judge = _of_report(
            policy,
            VerificationRequest(
                EvidenceKind(kind), platform_policy(policy, EvidenceKind(kind)), at, (), nonce, report_data
            ),
            subject,
        )
    answer(ctx, kind or "host", path, endorsements, judge, as_json=as_json)


def _of_report(policy: AttestationPolicy, question: VerificationRequest, subject: str | None) -> Judge:
    from aegis.evidence import appraise as appraise_report

    def judge(content: bytes, files: tuple[bytes, ...]) -> EvidenceVerdict:
        return appraise_report(replace(question, endorsements=files), policy, subject, content)

    return judge


def _of_host(policy: AttestationPolicy, binding: Binding, now: int) -> Judge:
    from aegis.evidence import appraise_host

    def judge(content: bytes, files: tuple[bytes, ...]) -> EvidenceVerdict:
        return appraise_host(content, files, policy, binding, now)

    return judge


def _refuse_binding(host: Mapping[str, object]) -> None:
    for name, value in host.items():
        if value is not None:
            option = _option(name)
            raise click.UsageError(f"{option} applies only to a whole host's evidence: leave out {option}, or --kind")


def _binding(role: str | None, parts: Mapping[str, bytes | str | None], report_data: bytes | None) -> Binding:
    """Return the binding of a whole host's evidence; raises ``UsageError`` if any part is missing."""
    from coreason_enclave.attestation import Binding

    if report_data is not None:
        raise click.UsageError("--report-data applies only to a single report: give --kind as well")
    if missing := [_option(name) for name, value in parts.items() if value is None]:
        raise click.UsageError(f"without --kind, a whole host's evidence needs {', '.join(missing)}")
    texts = {name: value.hex() if isinstance(value, bytes) else str(value) for name, value in parts.items()}
    return Binding(role=Role(role or Role.SITE), **texts)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
