"""Attesters: what produces evidence on this host. They vouch for nothing; whoever relies on evidence verifies it."""
