"""The demonstration: one model over the six real sites of the RAND Health Insurance Experiment."""
