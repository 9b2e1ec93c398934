"""The demonstration: trains a model over the six real sites of the RAND Health Insurance Experiment.

Enters: the options of ``aegis demo``, and the experiment's public data.
Leaves: simulated sites, a run folder, plots and a summary.
Never: refunds a site's budget, or calls a simulated attestation real.

The program loads the demonstration by its path, so the room offers no name to other rooms:

>>> from aegis.cli import main
>>> from click.testing import CliRunner
>>> answer = CliRunner().invoke(main, ["demo", "--sites", "7"])
>>> print(answer.exit_code, answer.output.strip())
2 error: Invalid value for '--sites': 7 is not in the range 2<=x<=6. (see aegis demo --help)
"""

__all__: list[str] = []  # the program loads the command by its path
