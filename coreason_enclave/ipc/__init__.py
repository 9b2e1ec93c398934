"""What a carrier and the agent say to each other over the agent's Unix socket: frames, and the client."""
