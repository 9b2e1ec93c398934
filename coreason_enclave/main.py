"""The site's command line: initialise a site, join a federation, take part, and inspect the privacy ledger."""

from __future__ import annotations

import click

from coreason_enclave import __version__
from coreason_enclave.command_line import CommandLine, LazyCommand

COMMANDS = {
    "agent": LazyCommand("coreason_enclave.commands.agent:agent", "Run this site's agent."),
    "attest": LazyCommand("coreason_enclave.commands.attest:attest", "Collect evidence of this host's hardware."),
    "checkpoints": LazyCommand(
        "coreason_enclave.commands.checkpoints:checkpoints", "Show or export received checkpoints of coordinator logs."
    ),
    "dataset": LazyCommand("coreason_enclave.commands.dataset:dataset", "Declare, check and register datasets."),
    "doctor": LazyCommand("coreason_enclave.commands.doctor:doctor", "Check this site's set-up and name remedies."),
    "explain": LazyCommand(
        "coreason_enclave.commands.explain:explain", "Say what a reason code means, and who can do what."
    ),
    "export-ledger": LazyCommand(
        "coreason_enclave.commands.export_ledger:export_ledger", "Write this site's ledger, signed, for an auditor."
    ),
    "found": LazyCommand("coreason_enclave.commands.registration:init", "The former name of init.", hidden=True),
    "init": LazyCommand("coreason_enclave.commands.registration:init", "Initialise a site from your site.toml."),
    "join": LazyCommand("coreason_enclave.commands.registration:join", "Accept a coordinator's grant and connect."),
    "ledger": LazyCommand("coreason_enclave.commands.ledger:ledger", "Show, verify or export the privacy ledger."),
    "policy": LazyCommand("coreason_enclave.commands.policy:policy", "Show or change site.toml, with a reason."),
    "request": LazyCommand("coreason_enclave.commands.registration:request", "Write a request to join a federation."),
    "status": LazyCommand("coreason_enclave.commands.agent:status", "Show the state of this site's agent."),
}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    an error in this program (AEGIS_TRACEBACK=1 shows where)
  2    an option or a file that cannot be used
  3    refused: the ledger does not verify, or may not be used now; doctor: something FAILs; attest: no evidence here
  130  interrupted (Ctrl-C)
  143  ended by SIGTERM

\b
Example: coreason-enclave doctor --config /srv/clinic/site.toml
"""


@click.group("coreason-enclave", cls=CommandLine, later=COMMANDS, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="coreason-enclave", message="%(prog)s %(version)s")
def main() -> None:
    """The agent at a data holder's site: the model comes to the data, and the site keeps account of it."""


if __name__ == "__main__":
    main()
