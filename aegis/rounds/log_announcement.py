"""Shows the finished log to the sites after the last round, and collects their witness statements.

Best effort. The log is signed and closed by then, so none of the statements enter it. A site that misses the
announcement still holds the checkpoint from its last order.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from aegis.rounds.context import RunContext
from aegis.rounds.dispatcher import Dispatcher, Reply, ReplyKind
from aegis.rounds.transport import OutboundMessage
from coreason_enclave.crypto import seal, unverified_payload
from coreason_enclave.errors import EnclaveError
from coreason_enclave.system import CLOCK_SKEW_S
from coreason_enclave.wire import (
    ANNOUNCEMENT_TYPE,
    LogAnnouncement,
    RequestKind,
    SealedMessage,
    open_checkpoint,
    open_witness,
    origin_of_run,
)

ANNOUNCE_S = 10.0
"""Seconds that sites may take to answer: a site only reads, writes a small file and signs."""


def announce(run: RunContext, dispatcher: Dispatcher) -> Mapping[str, bytes]:
    """Announce the end of the run to the last round's sites; return their witness statements, by site."""
    last = run.journal.state.history[-1].admitted if run.journal.state.history else ()
    recipients = [site for site in last if site in run.sites.registered and not run.sites.is_revoked(site)]
    outbound_messages = {site: _outbound(run, site) for site in recipients}
    statements: dict[str, bytes] = {}
    for batch in dispatcher.send(list(outbound_messages.values()), ANNOUNCE_S):
        for reply in batch:
            if reply.kind is ReplyKind.FIRST and isinstance(reply.content, SealedMessage):
                _store_statement(run, reply, outbound_messages[reply.site], statements)
    return dict(sorted(statements.items()))


def _outbound(run: RunContext, site: str) -> OutboundMessage:
    log, log_proof = run.witnesses.show(site)
    now = run.clock()
    announcement = LogAnnouncement(
        site_id=site,
        profile=run.profile,
        job_id=run.job.job_id,
        job_digest=run.job.digest(),
        log=log,
        log_proof=log_proof,
        issued_at=int(now),
        expires_at=int(now + ANNOUNCE_S) + CLOCK_SKEW_S,
    )
    return OutboundMessage(
        site=site,
        node_id=run.sites.registered[site].node_id,
        request_kind=RequestKind.WITNESS,
        message=SealedMessage(seal(ANNOUNCEMENT_TYPE, announcement.canonical(), run.signer)),
        group="witness",
        ttl_s=ANNOUNCE_S + CLOCK_SKEW_S,
    )


def _store_statement(run: RunContext, reply: Reply, outbound: OutboundMessage, statements: dict[str, bytes]) -> None:
    """Keep a statement if its site signed it and it holds the announced checkpoint."""
    if not isinstance(reply.content, SealedMessage):
        return
    key = run.signer.public_hex
    try:
        announced = open_checkpoint(
            LogAnnouncement.from_payload(unverified_payload(outbound.message.envelope)).log, key
        )
        statement = open_witness(reply.content.envelope)
        own_logs = [each for each in statement.logs if each.origin == origin_of_run(run.job.digest())]
        whose = statement.site_id, statement.public_key
        if whose == (reply.site, run.sites.registered[reply.site].public_key) and [
            open_checkpoint(each.last, key) for each in own_logs
        ] == [announced]:
            statements[reply.site] = reply.content.envelope
    except EnclaveError as error:
        logging.getLogger(__name__).warning("%s sent no valid witness statement: %s", reply.site, error)
