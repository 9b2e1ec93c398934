"""This operating system: files replaced durably, child processes, log files, time.

Enters: paths, bytes, commands. Leaves: files that are whole after a crash, processes that die with their parent.
Never: imports another room; knows what a file means.
"""
