"""The site's command line: what a data holder runs to look after its own ledger."""

from __future__ import annotations

import click

from coreason_enclave import __version__
from coreason_enclave.commandline import CommandLine, Later

__all__ = ["main"]

COMMANDS = {
    "ledger": Later("coreason_enclave.ledger.commands:ledger", "Show, verify or export this site's privacy ledger."),
}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    a fault of this program (AEGIS_TRACEBACK=1 shows where)
  2    an option or a file that cannot be used
  3    refused: the ledger does not verify, or may not be used now
  130  interrupted

\b
Example: coreason-enclave ledger show sites/site-1/ledger/ledger.sqlite
"""


@click.group("coreason-enclave", cls=CommandLine, later=COMMANDS, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="coreason-enclave", message="%(prog)s %(version)s")
def main() -> None:
    """The agent at a data holder's site: the model comes to the data, and the site keeps account of it."""


if __name__ == "__main__":
    main()
