"""The site on Flower: the ``ClientApp``, the worker that answers a SuperNode's tasks, and the SuperNode process.

Enters: Flower messages with sealed bytes, by way of the site's SuperNode. Leaves: sealed replies or reason codes.
Never: runs app code from the network.

On the site's side only this folder imports Flower.

The text of a refusal stays at the site:

>>> from coreason_enclave.errors import JobRejected
>>> from coreason_enclave.federation.flower import REFUSED, client_app
>>> from coreason_enclave.wire import WIRE_RECORD, SealedMessage
>>> from flwr.app import ConfigRecord, Context, Message, RecordDict
>>> from flwr.supercore.task_identity import TaskIdentity
>>> class Site:
...     def handle(self, kind, message):
...         raise JobRejected("row 7 has no age")
>>> order = RecordDict({WIRE_RECORD: ConfigRecord(SealedMessage(b"order").to_fields())})
>>> TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 0  # Flower stamps messages with these
>>> reply = client_app(Site())(Message(order, message_type="train", dst_node_id=1), Context(1, 1, {}, RecordDict(), {}))
>>> reply.error.code == REFUSED, reply.error.reason
(True, 'policy')
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
