"""Is this evidence authentic, and the platform that made it in good state? Pure functions, one file a kind.

Each takes bytes and an explicit ``now``; none reads a clock, a file or the network. What a function could not check it
lists; what it checked and did not like, it raises. Whether an authentic report is *acceptable* is another question,
which :mod:`coreason_enclave.attestation.appraisal` answers.
"""
