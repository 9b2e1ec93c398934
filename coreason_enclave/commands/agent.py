"""``coreason-enclave agent`` and ``coreason-enclave status``: run a site's agent, and show its state."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coreason_enclave.command_line import site_folder
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import Profile
from coreason_enclave.system import as_text

if TYPE_CHECKING:
    from coreason_enclave.crypto import UnsafeSeededNoise

_PATH = click.Path(path_type=Path)
_ANSWER_S = 10.0


@click.command(epilog="Example: coreason-enclave agent --config /srv/clinic/site.toml")
@click.option("--config", "folder", required=True, type=_PATH, callback=site_folder, help="A site.toml or its folder.")
@click.option(
    "--unsafe-seed",
    type=click.IntRange(min=0),
    help="UNSAFE: derive the noise from this number, for reproducible runs. Anyone who knows the number can subtract "
    "the noise: there is NO privacy. Profile development only.",
)
@click.option("--socket-only", is_flag=True, help="Serve only the socket (NVIDIA FLARE): no gateway, no SuperNode.")
def agent(folder: Path, unsafe_seed: int | None, socket_only: bool) -> None:
    """Run this site's agent in the foreground, until SIGTERM or Ctrl-C.

    It starts a SuperNode, connects to the gateway of the federation that the site has joined, and answers orders of
    the coordinators that site.toml lists, within the policy that it sets. With --socket-only it does neither of the
    first two. One JSON object a line on standard output.
    """
    keys = None if unsafe_seed is None else _unsafe_keys(folder, unsafe_seed)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # connects only to loopback and its gateway, directly
    from coreason_enclave.agent import run_agent  # loads the frameworks

    run_agent(folder, job_keys=keys, stop=stop, socket_only=socket_only)


@click.command(epilog="Example: coreason-enclave status --config /srv/clinic/site.toml")
@click.option("--config", "folder", required=True, type=_PATH, callback=site_folder, help="A site.toml or its folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(folder: Path, as_json: bool) -> None:
    """How this site's agent is: connection, orders answered and refused, budgets left."""
    from coreason_enclave.ipc import AgentClient

    report = AgentClient(folder, timeout_s=_ANSWER_S).status()
    click.echo(json.dumps(report, indent=2) if as_json else _page(report))


def _unsafe_keys(folder: Path, seed: int) -> UnsafeSeededNoise:
    from coreason_enclave.crypto import unsafe_seeded_keys
    from coreason_enclave.policy import load_site_config

    config = load_site_config(folder / "site.toml")
    if config.profile is not Profile.DEVELOPMENT:
        raise ConfigurationError("--unsafe-seed needs profile development: anyone with the seed can subtract the noise")
    click.echo(f"UNSAFE: the noise of {config.site_id} comes from a known seed; nothing here is private", err=True)
    return unsafe_seeded_keys(seed, config.site_id)


def _page(report: dict[str, Any]) -> str:
    unsafe = ", UNSAFE SEEDED NOISE" if report["unsafe_seeded_noise"] else ""
    counts = f"{report['answered']} answered, {report['refused']} refused"
    activity = "working on an order" if report["busy"] else "waiting"
    return "\n".join(
        [
            f"{report['site_id']}: agent {report['version']}, {Profile(report['profile']).in_words()}{unsafe}",
            f"  since {_moment(report['started'])}, {activity}; {counts}",
            *_describe_connections(report),
            *map(_budget_line, report["budgets"]),
        ]
    )


def _describe_connections(report: dict[str, Any]) -> list[str]:
    trained = [f"  trained by {report['trainer']}"] if report["trainer"] else []
    if report["socket_only"]:
        return ["  serves only its socket: no gateway, no SuperNode", *trained]
    trip = report["round_trip_s"]
    reached = "no answer received yet" if trip is None else f"round trip {trip * 1000:.1f} ms"
    runs = "runs" if report["supernode_running"] else "DOES NOT RUN"
    return [
        f"  gateway {report['gateway']}: {reached}",
        f"  SuperNode {runs}, {report['supernode_restarts']} restarts, last poll {_moment(report['last_poll'])}",
        *trained,
    ]


def _budget_line(entry: dict[str, Any]) -> str:
    spent = f"epsilon {entry['epsilon_spent']:.3f} of {entry['epsilon_cap']:g}"
    return f"  {entry['dataset_id']}: {spent} spent at delta {entry['delta']:g}"


def _moment(unix: int | None) -> str:
    return "never" if unix is None else as_text(unix)
