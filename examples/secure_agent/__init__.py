"""A data scientist's own training loop at a site, as docs/TUTORIAL.md explains it."""
