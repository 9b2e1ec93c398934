"""Attesters: what produces evidence on this host."""
