"""The platform's command line.

>>> from click.testing import CliRunner
>>> answer = CliRunner().invoke(main, ["privacy", "epsilon", "--noise-multiplier", "1.0", "--sample-rate", "0.05",
...                                    "--steps", "68", "--delta", "1e-5"])
>>> print(answer.output.splitlines()[0])
epsilon 2.998 at delta 1e-05 (PLD; Rényi cross-check 3.513)

Importing this module loads no framework, and neither does ``aegis --help``: each command loads its own imports on use.
"""

from __future__ import annotations

import click

from aegis.errors import (
    AegisError,
    CertificateRefused,
    GatewayUnreachable,
    InvalidAggregation,
    InvalidJob,
    InvalidStudy,
    RunFolderError,
    RunPaused,
    RunRefused,
    TransportUnavailable,
)
from coreason_enclave import __version__
from coreason_enclave.command_line import CommandLine, ExitCode, LazyCommand
from coreason_enclave.errors import DatasetRejected

COMMANDS = {
    "demo": LazyCommand(
        "aegis.demo.command:demo", "Train over six simulated sites of a real study, and show the result."
    ),
    "evaluate": LazyCommand(
        "aegis.commands.evaluate:evaluate", "Measure the model of a finished run on labelled rows."
    ),
    "evidence": LazyCommand(
        "aegis.commands.evidence.group:evidence", "Verify, appraise and inspect hardware evidence."
    ),
    "explain": LazyCommand("aegis.commands.explain:explain", "Say what a reason code means, and who can do what."),
    "federation": LazyCommand(
        "aegis.commands.federation:federation", "Create a federation, admit sites, serve and monitor the federation."
    ),
    "init": LazyCommand("aegis.commands.init:init", "Create a study from your own rows."),
    "nvflare": LazyCommand(
        "aegis.commands.nvflare:nvflare", "Make startup kits and jobs for an NVIDIA FLARE deployment."
    ),
    "plan": LazyCommand("aegis.commands.plan:plan", "Say what a job would cost and whether it would run."),
    "predict": LazyCommand("aegis.commands.predict:predict", "Predict rows with the model of a finished run."),
    "privacy": LazyCommand("aegis.commands.privacy:privacy", "Compute what training costs in privacy, before it runs."),
    "run": LazyCommand(
        "aegis.commands.run:run", "Run a study, or a job over a federation, or continue an unfinished run."
    ),
    "runs": LazyCommand("aegis.commands.runs:runs", "List the runs of a study or folder, or compare runs."),
    "verify": LazyCommand("aegis.commands.verify:verify", "Check a run's claims against its records, offline."),
}

REFUSALS = {
    AegisError: ExitCode.REFUSED,
    InvalidJob: ExitCode.UNUSABLE,
    InvalidStudy: ExitCode.UNUSABLE,
    DatasetRejected: ExitCode.UNUSABLE,
    InvalidAggregation: ExitCode.UNUSABLE,
    TransportUnavailable: ExitCode.UNUSABLE,
    CertificateRefused: ExitCode.UNUSABLE,
    GatewayUnreachable: ExitCode.UNUSABLE,
    RunFolderError: ExitCode.UNUSABLE,
    RunPaused: ExitCode.PAUSED,
    RunRefused: ExitCode.REFUSED,
}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    an error in this program (AEGIS_TRACEBACK=1 shows where)
  2    an option, a file or a folder that cannot be used
  3    refused: by a privacy budget, a site's policy or a precondition; waiting does not help
  4    paused: repeat the command to continue
  10+  a finding of `aegis verify`: see its --help
  130  interrupted (Ctrl-C)
  143  ended by SIGTERM

\b
Example: aegis privacy epsilon --noise-multiplier 1.0 --sample-rate 0.05 --steps 68 --delta 1e-5
"""


@click.group("aegis", cls=CommandLine, later=COMMANDS, refusals=REFUSALS, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="aegis", message="%(prog)s %(version)s")
def main() -> None:
    """Federated learning in which every site keeps its data, its privacy ledger and its right to say no."""


if __name__ == "__main__":
    main()
