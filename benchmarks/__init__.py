"""Measurements that back the figures in the documentation; each runs from the command line."""
