"""How a site joins a federation: one file for each framework, each of them bytes in, session, bytes out."""
