"""The runtime on NVIDIA FLARE: the coordinator is a workflow in FLARE's server process, a message is one of its tasks.

FLARE is imported in this package alone on the platform's side. Where something of FLARE is internal it is used in one
place here, and a test for each fails when an upgrade moves it.
"""
