"""The round engine: takes a run through one round, from invitation to aggregation, without naming any framework.

Enters: a job, the registered sites, a transport. Leaves: a completed round on disk, or a pause with its reason.
Never: imports a federation framework; sends a model to a site without a current attestation.

A transport pushes and pulls messages. For each request, the dispatcher yields one first reply or one missing reply:

>>> from aegis.coordination import NoLiveness
>>> from aegis.rounds import Dispatcher, InboundMessage, OutboundMessage
>>> from coreason_enclave.wire import RequestKind, SealedMessage
>>> class Echo:
...     def push(self, messages):
...         self.inbound = [InboundMessage("id", each.node_id, each.message) for each in messages]
...         return ["id"]
...     def pull(self, message_ids):
...         return self.inbound
>>> order = OutboundMessage("ash", 1, RequestKind.TRAIN, SealedMessage(b"order"), group="1", ttl_s=60.0)
>>> [reply] = next(Dispatcher(Echo(), NoLiveness()).send([order], within_s=1.0))
>>> reply.site, reply.kind.value, reply.content.envelope
('ash', 'first', b'order')
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
