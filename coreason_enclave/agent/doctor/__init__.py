"""``coreason-enclave doctor``: is this site set up so that it can take part, and if not, what is there to do?"""
