"""Hostile participants and privacy attacks, to measure what the defences are worth. Everything here is simulated."""
