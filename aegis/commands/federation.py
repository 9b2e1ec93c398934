"""``aegis federation``: creates a federation, admits sites, runs its processes and shows their status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aegis.commands.membership import admit, pin, revoke
from aegis.errors import GatewayUnreachable, RunFolderError
from coreason_enclave.schemas import Profile
from coreason_enclave.system import LogLevel, as_text, configure_logging

if TYPE_CHECKING:
    from aegis.gateway import StatusReport
    from aegis.runtimes.flower import FederationHost

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_END_S = 40.0
_FULL_S = 60.0
"""Seconds for which the gateway counts as full after a limit common to all took effect."""

_local_sites = click.option(
    "--local-sites/--no-local-sites",
    default=True,
    show_default=True,
    help="Also run an agent for each registered site whose folder is in FEDERATION/sites.",
)
_unsafe_seed = click.option("--unsafe-seed", type=click.IntRange(min=0), help="UNSAFE: seed of all local sites' noise.")
_attackers = click.option(
    "--attackers", type=click.IntRange(min=0), default=0, hidden=True, help="Local sites run by a SIMULATED attacker."
)


@click.group(epilog="Example: aegis federation status federations/six-sites")
def federation() -> None:
    """Create a federation, admit sites, run the coordinator's processes, look at them.

    FEDERATION is a folder on the coordinator's host. A site needs nothing of it but its grant.
    """


for command in (admit, pin, revoke):
    federation.add_command(command)


@federation.command(epilog="Example: aegis federation init federations/six-sites --public-address fl.example.org:9443")
@click.argument("folder", metavar="FEDERATION", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    default=Profile.PRODUCTION.value,
    show_default=True,
    help="development: simulated attestation, public rows; unattested: real rows without hardware evidence.",
)
@click.option("--delta", type=float, default=1e-5, show_default=True, help="Delta of jobs that name no delta.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address that the gateway listens on.")
@click.option("--public-address", metavar="HOST:PORT", help="The gateway's address as sites reach it.")
def init(folder: Path, profile: str, delta: float, host: str, public_address: str | None) -> None:
    """Create a federation without participants: keys, certificate authority, gateway."""
    from aegis.federation import FederationFolder
    from aegis.services import create_federation
    from coreason_enclave.wire import fingerprint

    place = FederationFolder(folder)
    gateway = create_federation(place, profile=Profile(profile), delta=delta, host=host, public_address=public_address)
    key = place.signer().public_hex
    if profile != Profile.DEVELOPMENT.value and public_address is None and host in {"127.0.0.1", "::1", "localhost"}:
        said = (
            f"note: {host} reaches no other host: for real sites, give --host and --public-address to a new federation"
        )
        click.echo(said, err=True)
    click.echo(f"created {folder}, {Profile(profile).in_words()}; sites will reach it at {gateway.public_address}")
    click.echo(f"coordinator's public key   {key}")
    click.echo(f"fingerprint                {fingerprint(key)}")
    accepting = " --accept-unattested" if profile == Profile.UNATTESTED else ""
    click.echo(
        f"next: a site runs coreason-enclave request; then aegis federation admit {folder} request.json{accepting}"
    )


@federation.command(epilog="Example: aegis federation serve federations/six-sites --no-local-sites")
@click.argument("folder", metavar="FEDERATION", type=_FOLDER)
@_local_sites
@_unsafe_seed
@_attackers
def serve(folder: Path, local_sites: bool, unsafe_seed: int | None, attackers: int) -> None:
    """Run SuperLink, the gateway and local site agents, until SIGTERM or Ctrl-C. Made for systemd."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # every peer listens on loopback
    from aegis.federation import FederationFolder
    from aegis.runtimes.flower import FederationHost, HostOptions, Supervisor

    place = FederationFolder(folder)
    place.config()
    configure_logging({"process": "supervisor"}, default=LogLevel.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Supervisor(FederationHost(place), HostOptions(local_sites, unsafe_seed, attackers), stop).run()


@federation.command(epilog="Example: aegis federation up federations/six-sites")
@click.argument("folder", metavar="FEDERATION", type=_FOLDER)
@_local_sites
def up(folder: Path, local_sites: bool) -> None:
    """Start what `serve` runs in the background, and return once it serves."""
    from aegis.federation import FederationFolder
    from aegis.runtimes.flower import FederationHost, HostOptions, await_serving, serve_command

    place = FederationFolder(folder)
    place.config()
    host = FederationHost(place)
    if host.running():
        raise RunFolderError(f"{folder} is already being served: see aegis federation status {folder}")
    host.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _appended(host.logs / "supervisor.log") as log:
        supervisor = subprocess.Popen(  # noqa: S603 - our own command line
            serve_command(folder, HostOptions(local_sites)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    await_serving(host, lambda: supervisor.poll() is not None)
    click.echo(f"{folder} is served by process {supervisor.pid}; logs in {host.logs}")


@federation.command(epilog="Example: aegis federation down federations/six-sites")
@click.argument("folder", metavar="FEDERATION", type=_FOLDER)
def down(folder: Path) -> None:
    """End what `up` or `serve` runs. A run that is going on pauses, and goes on once it is up again."""
    from aegis.federation import FederationFolder
    from aegis.runtimes.flower import FederationHost

    place = FederationFolder(folder)
    place.config()  # refuses a folder that holds no federation
    host = FederationHost(place)
    state = host.state()
    if state is None:
        click.echo(f"{folder} is not being served")
        return
    if "pid" not in state:
        raise RunFolderError(f"{folder} is still starting: try again in a few seconds")
    os.kill(int(state["pid"]), signal.SIGTERM)
    end = time.monotonic() + _END_S
    while host.running():
        if time.monotonic() > end:
            raise RunFolderError(f"process {state['pid']} did not stop: see {host.logs}")
        time.sleep(0.1)
    click.echo(f"{folder} is down")


@federation.command(epilog="Example: aegis federation status federations/six-sites --json")
@click.argument("folder", metavar="FEDERATION", type=_FOLDER)
@click.option("--run", "run_folder", type=_FOLDER, help="Also show the sites that are suspended in this run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(folder: Path, run_folder: Path | None, as_json: bool) -> None:
    """How the processes and the sites are: connections, round-trips, versions, free budgets, quarantine.

    Exit code 3 while it is not being served.
    """
    from aegis.federation import FederationFolder
    from aegis.runtimes.flower import FederationHost

    host = FederationHost(FederationFolder(folder))
    report = _status(host, run_folder)
    click.echo(json.dumps(report, indent=2) if as_json else _page(report))
    if not report["serving"]:
        click.get_current_context().exit(3)


def _status(host: FederationHost, run_folder: Path | None) -> dict[str, Any]:
    config, state = host.federation.config(), host.state()
    report = _report(None if state is None else host)
    seen = report.sites
    out = {} if run_folder is None else _quarantined(run_folder)
    return {
        **config.profile.label(),
        "serving": bool((state or {}).get("serving")),
        "gateway": (state or {}).get("gateway"),
        "options": (state or {}).get("options"),
        "processes": (state or {}).get("processes", {}),
        "load": None
        if state is None
        else {
            **report.gateway.model_dump(mode="json"),
            "in_words": report.gateway.in_words(),
        },
        "full": state is not None and report.gateway.crowded_since(time.time() - _FULL_S),
        "sites": {
            site: {
                "admitted": site in config.certificates,
                "revoked": site in config.revoked,
                **({"attestation": "not attested"} if config.profile is Profile.UNATTESTED else {}),
                **(seen[site].model_dump(mode="json") if site in seen else {}),
                **({"quarantine": out[site]} if site in out else {}),
            }
            for site in sorted(config.public_keys)
        },
    }


def _report(host: FederationHost | None) -> StatusReport:
    """Return the gateway's report; empty without a host or a reachable gateway."""
    from aegis.gateway import StatusReport

    try:
        return StatusReport(sites={}) if host is None else host.gateway().report()
    except (GatewayUnreachable, RunFolderError):
        return StatusReport(sites={})


def _quarantined(run_folder: Path) -> dict[str, str]:
    from aegis.runs import RunFolder

    return dict(RunFolder(run_folder).quarantined_now())


def _page(report: dict[str, Any]) -> str:
    head = f"gateway {report['gateway']}" if report["serving"] else "NOT being served"
    lines = [f"{head}, {Profile(report['profile']).in_words()}"]
    for name, process in report["processes"].items():
        lines.append(f"  {name}: process {process['pid']}, {process['restarts']} restarts")
    if report["load"] is not None:
        full = "the gateway is FULL and may refuse sites: " if report["full"] else ""
        lines.append(f"  {full}{report['load']['in_words']}")
    return "\n".join(
        [*lines, *(line for site, details in report["sites"].items() for line in _site_lines(site, details))]
    )


def _site_lines(site: str, details: dict[str, Any]) -> list[str]:
    if details["revoked"]:
        return [f"{site}: REVOKED"]
    if not details["admitted"]:
        return [f"{site}: registered, not admitted to the network"]
    attested = ["NOT ATTESTED"] if details.get("attestation") == "not attested" else []
    trip, version = details.get("round_trip_s"), details.get("version")
    parts = [
        *attested,
        "connected" if details.get("connected") else "NOT connected",
        f"seen {_moment(details.get('last_seen'))}",
        f"asked {_moment(details.get('last_poll'))}",
        *([] if trip is None else [f"round trip {trip * 1000:.1f} ms"]),
        *([] if version is None else [f"agent {version}"]),
        *(["answering"] if details.get("busy") else []),
        *(["SENT AN OVERSIZED REPLY and was disconnected"] if details.get("oversized") else []),
        *([f"QUARANTINED: {details['quarantine']}"] if "quarantine" in details else []),
    ]
    return [f"{site}: {', '.join(parts)}", *map(_budget_line, details.get("budgets", ()))]


def _budget_line(entry: dict[str, Any]) -> str:
    left = entry["epsilon_cap"] - entry["epsilon_spent"]
    return f"  {entry['dataset_id']}: epsilon {left:.3f} of {entry['epsilon_cap']:g} left at delta {entry['delta']:g}"


def _moment(unix: float | None) -> str:
    return "never" if unix is None else as_text(unix)


def _appended(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
