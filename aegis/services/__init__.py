"""Use cases over a federation folder that the command line and the API share.

Enters: a request that was authorised by its caller. Leaves: a changed registry, certificates, grants.
Never: parses arguments, prints, or speaks HTTP.
"""
