"""The commands of :mod:`aegis.cli`, a file for each; a command's file loads on first use.

Enters: command line arguments.
Leaves: text or JSON on the terminal, and an exit code.
Never: holds a rule of its own; a command calls the room that does.
"""
