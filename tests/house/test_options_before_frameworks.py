"""No command loads a framework or a numeric library for ``--help`` or for a wrong option.

All commands of a program share one process: what one loads, all show, and the first that loads it is named.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, sys
import click
from click.testing import CliRunner
root = importlib.import_module(sys.argv[1]).main
heavy = ("flwr", "matplotlib", "numpy", "nvflare", "opacus", "pandas", "pyarrow", "scipy", "sklearn", "torch")
def paths(command, path):
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from paths(command.get_command(context, name), [*path, name])
for path in paths(root, []):
    for option in ("--help", "--no-such-option"):
        result = CliRunner().invoke(root, [*path, option])
        assert result.exit_code == (0 if option == "--help" else 2), (path, option, result.output)
        loaded = [name for name in heavy if name in sys.modules]
        assert not loaded, (path, option, loaded)
"""


@pytest.mark.parametrize("program", ["aegis.cli", "coreason_enclave.main"])
def test_help_and_a_wrong_option_of_every_command_load_no_framework(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]
