"""Use cases over a federation folder, shared by the command line and the API.

Enters: a request that the caller has authorised.
Leaves: a changed registry, certificates, grants.
Never: parses arguments, prints, or speaks HTTP.
"""
