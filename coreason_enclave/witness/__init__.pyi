from .statement import witness_statement as witness_statement
from .store import CheckpointStore as CheckpointStore
from .store import ShownLog as ShownLog
