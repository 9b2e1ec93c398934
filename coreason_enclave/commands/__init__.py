"""The subcommands of ``coreason-enclave``, one file for each noun.

Enters: command line arguments. Leaves: text or JSON on the terminal, and an exit code.
Never: holds a rule of its own; a command calls the room that does.

The program loads each command by its path, so the room offers no name to other rooms:

>>> from click.testing import CliRunner
>>> from coreason_enclave.main import main
>>> answer = CliRunner().invoke(main, ["ledger", "--help"])
>>> print(answer.exit_code, answer.output.splitlines()[0])
0 Usage: coreason-enclave ledger [OPTIONS] COMMAND [ARGS]...
>>> "ledger" in main.list_commands(None)
True
"""

__all__: list[str] = []  # the program loads each command by its path
