"""The demonstration: trains a model over the six real sites of the RAND Health Insurance Experiment.

Enters: the options of ``aegis demo``, and the experiment's public data.
Leaves: simulated sites, a run folder, plots and a summary.
Never: refunds a site's budget, or calls a simulated attestation real.
"""
