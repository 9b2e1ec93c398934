"""How a site reaches its federation's gateway: its transport keys, and where and whom it connects to."""
