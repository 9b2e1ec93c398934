"""The clients: real sites in folders of their own, and what answers for each of them.

An honest client is answered for by its own session: policy, ledger, private training, airlock, signature. A hostile
one is the same site behind a simulated attacker that replaces its update, or trains on rows whose labels were turned
around.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aegis.attacks.hostile import Attack, Insider, Overheard, SimulatedForger, forge_of
from aegis.runtimes import ClientApp
from coreason_enclave.crypto import load_or_create_signer
from coreason_enclave.federation.flower import client_app
from coreason_enclave.site import Site, create_site
from examples.flower_sim.dataset import DATASET_ID, Digits, turned_around, write_share
from examples.simulated_sites import Budget, simulated_site

__all__ = ["DELTA", "EPSILON_CAP", "answering", "found_clients", "names_of"]

DELTA = 1e-4
EPSILON_CAP = 20.0
"""What each client's ledger allows over all jobs on its images: more than one job of this example, less than two."""


def names_of(clients: int) -> tuple[str, ...]:
    """The clients' names; the hostile one, where there is one, is the last."""
    return tuple(f"client-{number}" for number in range(1, clients + 1))


def found_clients(root: Path, digits: Digits, coordinator_key: str, attack: Attack | None) -> dict[str, str]:
    """Found a new site for each share below ``root``; return their public keys by name."""
    names = names_of(len(digits.shares))
    keys = {name: load_or_create_signer(root / name / "keys" / "signing.key").public_hex for name in names}
    for name, share in zip(names, digits.shares, strict=True):
        flipped = attack is Attack.LABEL_FLIP and name == names[-1]
        write_share(root / name, turned_around(share) if flipped else share)
        config = simulated_site(
            name,
            coordinator_key=coordinator_key,
            participants=keys,
            dataset_id=DATASET_ID,
            declared=len(share.labels) // 10 * 10,
            budget=Budget(epsilon=EPSILON_CAP, job_epsilon=EPSILON_CAP, delta=DELTA),
            model_arch="SimpleMLP",
            min_clients=3,
        )
        create_site(root / name, config)
    return keys


def answering(attack: Attack | None, hostile: str, overheard: Overheard) -> Callable[[Site], ClientApp]:
    """What answers for each site. Everything that is sent passes ``overheard``, which keeps it for comparison."""
    forge = None if attack is None else forge_of(attack)

    def answers(site: Site) -> ClientApp:
        name = site.config.site_id
        if forge is None or name != hostile:
            return client_app(overheard.listen(name, Insider(site.session)))
        knows = overheard if attack is not None and attack.is_omniscient else None
        return client_app(overheard.listen(name, SimulatedForger(site.session, forge, knows)))

    return answers
