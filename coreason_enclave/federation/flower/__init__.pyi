from .app import REFUSED as REFUSED
from .app import client_app as client_app
from .supernode import SuperNode as SuperNode
from .worker import Worker as Worker
