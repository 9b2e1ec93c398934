"""Programs to run and to read; each works as it stands."""
