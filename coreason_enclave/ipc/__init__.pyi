from .client import AgentClient as AgentClient
from .frames import encode_frame as encode_frame
from .frames import read_frame as read_frame
from .streams import SOCKET_FILE as SOCKET_FILE
from .streams import exact_reader as exact_reader
from .streams import socket_path as socket_path
