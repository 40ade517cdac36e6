"""nimctl takes a bare GPU host to a healthy OpenAI-compatible server."""

__version__ = "0.1.0"
