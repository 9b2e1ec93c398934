"""The long-lived process at a site: data, keys, ledger and session, one SuperNode, one tunnel, one socket."""
