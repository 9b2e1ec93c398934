"""Simulated hostile participants and privacy attacks, to measure the strength of the defences.

Enters: an honest site's update, message or evidence.
Leaves: an attacker's version of the same.
Never: attacks anything real; every participant here is simulated.
"""
