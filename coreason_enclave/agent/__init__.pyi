from .process import run_agent as run_agent
