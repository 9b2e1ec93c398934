"""A site that signs two histories of its ledger is refused and set aside by name, and the older head is kept."""

from __future__ import annotations

import json

from flwr.app import Message

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.envelope import unverified_payload
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.ledger import LedgerHead
from coreason_enclave.ledger.signed_heads import seal_head
from coreason_enclave.wire.updates import SealedMessage
from tests.support.studies import Federation, MakeStudy, Relay, a_job


def test_an_update_with_a_second_head_of_the_same_number_is_refused_as_a_fork(
    study: MakeStudy, federation: Federation
) -> None:
    key = Signer.from_seed(bytes.fromhex(sha256_hex(b"clinic-1")))
    run = study(4)
    kept: list[str] = []

    class Forked(Relay):
        """Clinic 1 signed an entry of another history, under the very number that its update now bears."""

        def receive(self, replies: list[Message]) -> list[Message]:
            if not kept:
                sealed = SealedMessage.from_fields(replies[0].content.config_records["aegis"])
                number = json.loads(unverified_payload(sealed.envelope))["ledger_head"]["seq"]
                kept.append(seal_head(LedgerHead(seq=number, hash="cd" * 32), "clinic-1", key))
                run.heads.put("clinic-1", kept[0])
            return replies

    run.run(a_job(federation, rounds=1), grid=Forked)

    refused = [line for line in run.audit() if line["outcome"] == "refused"]
    assert [(line["details"]["site"], line["reason"]) for line in refused] == [("clinic-1", "ledger_forked")]
    assert "two different entries" in json.dumps(refused[0])
    assert run.history()[0].admitted == ("clinic-2", "clinic-3", "clinic-4")
    assert run.state().quarantine["clinic-1"].reason == "ledger_forked"
    assert run.heads.get("clinic-1") == kept[0]
