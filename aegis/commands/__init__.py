"""The commands of :mod:`aegis.cli`, a file for each; a command's file loads on first use.

Enters: command line arguments.
Leaves: text or JSON on the terminal, and an exit code.
Never: holds a rule of its own; a command calls the room that does.

The program loads each command by its path, so the room offers no name to other rooms:

>>> from aegis.cli import main
>>> from click.testing import CliRunner
>>> answer = CliRunner().invoke(main, ["privacy", "--help"])
>>> print(answer.exit_code, answer.output.splitlines()[0])
0 Usage: aegis privacy [OPTIONS] COMMAND [ARGS]...
>>> "run" in main.list_commands(None)
True
"""

__all__: list[str] = []  # the program loads each command by its path
