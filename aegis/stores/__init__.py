"""Where a coordinator's state survives: one port, one file-backed implementation."""
