"""The platform for running a study: coordinates sites, aggregates updates and accounts for privacy.

Enters: signed registrations, attestation evidence and sealed updates of sites.
Leaves: training tasks, models, and records that anyone can verify offline.
Never: sees a site's data.
"""
