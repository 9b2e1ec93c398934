"""A site's folder: creating it, opening it, registering it with a federation, reaching the gateway.

Enters: ``site.toml`` and key files. Leaves: an opened site with all its collaborators chosen.
Never: trains or judges an order itself; overwrites a site that exists.
"""
