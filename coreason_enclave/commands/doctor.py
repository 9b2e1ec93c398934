"""``coreason-enclave doctor``: checks a site's set-up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coreason_enclave.command_line import ExitCode, site_folder
from coreason_enclave.errors import ConfigurationError

if TYPE_CHECKING:
    from coreason_enclave.agent.doctor import Check, Diagnosis


@click.command(epilog="Example: coreason-enclave doctor --config /srv/clinic/site.toml")
@click.option(
    "--config",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    callback=site_folder,
    help="A site.toml or its folder.",
)
@click.option("--socket-only", is_flag=True, help="For an agent with --socket-only: skip the gateway and its keys.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(folder: Path, socket_only: bool, as_json: bool) -> None:
    """Check this site's set-up: keys, policy, ledger, data, disk, socket, attestation of
    both ends, gateway, clock.

    Changes nothing, and tells no number that depends on a row. Exit code 3 if anything FAILs.
    """
    from coreason_enclave.agent.doctor import DiagnosisLevel

    findings = list(examine(folder, socket_only=socket_only))
    failed = any(finding.verdict is DiagnosisLevel.FAIL for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        for finding in findings:
            click.echo(_line(finding))
    if failed:
        click.get_current_context().exit(ExitCode.REFUSED)


def checks() -> dict[str, Check]:
    """Return every check by its name, in the order in which the doctor makes them."""
    from coreason_enclave.agent.doctor import coordinator, gateway, hardware, host, trainer

    return {
        "keys": host.keys,
        "policy": host.policy,
        "ledger": host.ledger,
        "data": host.data,
        "disk": host.disk,
        "socket": host.socket_place,
        "trainer": trainer.trainer,
        "attestation": hardware.attestation,
        "coordinator evidence": coordinator.evidence_of_coordinators,
        "gateway": gateway.gateway,
    }


def examine(folder: Path, *, now: Callable[[], float] = time.time, socket_only: bool = False) -> Iterator[Diagnosis]:
    """Yield the result of every check; an unreadable ``site.toml`` ends the examination."""
    from coreason_enclave.agent.doctor import Diagnosis, DiagnosisLevel, Examined, examined_safely
    from coreason_enclave.policy import load_site_config

    try:
        site = Examined(folder, load_site_config(folder / "site.toml"), now, socket_only)
    except ConfigurationError as error:
        yield Diagnosis("site.toml", DiagnosisLevel.FAIL, str(error), "correct the line that the message names")
        return
    yield Diagnosis("site.toml", DiagnosisLevel.OK, f"{site.config.site_id}, {site.config.profile.in_words()}")
    for name, check in checks().items():
        yield from examined_safely(name, check, site)


def _line(finding: Diagnosis) -> str:
    to_do = f" → {finding.to_do}" if finding.to_do else ""
    return f"{finding.verdict:<5} {finding.check}: {finding.found}{to_do}"
