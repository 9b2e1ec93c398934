"""The round engine: takes a run through one turn, from invitation to aggregation, without naming any framework.

Enters: a job, the registered sites, a transport. Leaves: a completed round on disk, or a pause with its reason.
Never: imports a federation framework; sends a model to a site without a current attestation.
"""
