"""The platform of whoever runs a study: it coordinates, aggregates and accounts, and never sees data."""
