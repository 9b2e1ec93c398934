"""The agent's Unix socket: the frame protocol, and a client for transports on the same host.

Enters: a sealed message for the local agent. Leaves: the agent's sealed reply, status or reason code.
Never: opens a sealed message, or holds a key.
"""
