"""The subcommands of ``coreason-enclave``, one file for each noun.

Enters: command line arguments. Leaves: text or JSON on the terminal, and an exit code.
Never: holds a rule of its own; a command calls the room that does.
"""
