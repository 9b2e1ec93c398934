"""Attackers for tests and demonstrations, each simulated and named so in every record.

Enters: an honest site's update, message or evidence. Leaves: what an attacker would send instead.
Never: runs in a federation that has not asked for it; reaches a real site's rows.
"""
