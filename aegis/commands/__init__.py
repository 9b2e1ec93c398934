"""The commands behind :mod:`aegis.cli`, one file each; a file is imported when its command is used."""
