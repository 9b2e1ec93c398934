"""Runtimes: where a job's sites run, in this process, over Flower or over NVIDIA FLARE.

Enters: sealed messages of a coordinator. Leaves: sealed replies of the sites' sessions.
Never: opens a sealed message, or changes the bytes between coordinator and session.
"""
