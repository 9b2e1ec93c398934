from __future__ import annotations

import numpy as np
import pytest

from aegis.attacks.hostile.byzantine import SimulatedAttacker, SimulatedForger
from aegis.attacks.hostile.eavesdropper import Overheard
from aegis.attacks.hostile.forged_evidence import Attack, forge_of
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.wire.documents import ENROLMENT_TYPE, UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.handler import RequestKind
from coreason_enclave.wire.updates import decode_arrays


@pytest.fixture
def site(federation):
    """An opened site, which computes the same update each time it is asked."""
    opened = federation.create().open(seed=3, clock=federation.clock)
    yield opened
    opened.close()


def _statement(answer, site):
    keys = KeyRing({site.config.site_id: site.signer.public_hex})
    return UpdateStatement.from_payload(open_envelope(answer.envelope, UPDATE_TYPE, keys).payload)


def _weights(answer) -> np.ndarray:
    return decode_arrays(answer.arrays, limit=1 << 20)["linear.weight"]


def test_a_forged_update_is_properly_signed_for_the_same_order_and_event(federation, site) -> None:
    order = federation.order(federation.job())
    honest = site.session.run(order)
    forged = SimulatedForger(site.session, forge_of(Attack.SIGN_FLIP)).run(order)
    assert _statement(forged, site).update_digest == sha256_hex(forged.arrays)
    changed = {"update_digest", "evidence", "ledger_head", "signed_head"}
    assert _statement(forged, site).model_dump(exclude=changed) == _statement(honest, site).model_dump(exclude=changed)
    assert (_weights(forged) == -_weights(honest)).all()


def test_an_attacker_scales_its_honest_update(federation, site) -> None:
    order = federation.order(federation.job())
    honest = site.session.run(order)
    forged = SimulatedAttacker(site.session).run(order)
    np.testing.assert_allclose(_weights(forged), -10 * _weights(honest), rtol=1e-6)


def test_an_omniscient_forger_sends_what_it_makes_of_the_others_updates(federation, site) -> None:
    overheard = Overheard(["clinic-2", "clinic-3"])
    for name, scale in (("clinic-2", 1.0), ("clinic-3", 3.0)):
        overheard.note(1, name, federation.weights(scale))
    forger = SimulatedForger(site.session, forge_of(Attack.IPM), overheard)
    assert _weights(forger.run(federation.order(federation.job()))).tolist() == [[-1.0, -2.0, -3.0]]


def test_a_hostile_site_enrols_like_any_other(federation, site) -> None:
    invitation = federation.invitation(federation.job())
    keys = KeyRing({site.config.site_id: site.signer.public_hex})
    for hostile in (
        SimulatedAttacker(site.session),
        SimulatedForger(site.session, forge_of(Attack.NAN)),
    ):
        enrolment = hostile.handle(RequestKind.ENROL, invitation)
        assert open_envelope(enrolment.envelope, ENROLMENT_TYPE, keys).signer == site.config.site_id


def test_a_hostile_site_cannot_spend_what_its_ledger_refuses(federation, site) -> None:
    job = federation.job(privacy={"target_epsilon": 9.9, "noise_multiplier": 0.5})
    with pytest.raises(EnclaveError) as refusal:
        SimulatedForger(site.session, forge_of(Attack.NAN)).run(federation.order(job))
    assert refusal.value.reason is Reason.BUDGET_EXCEEDED
