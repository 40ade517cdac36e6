"""Request rules inside the engine's process, and its way to the network: `--middleware entrypoint.api.RequestRules`."""

from entrypoint.api.middleware import RequestRules

__all__ = ["RequestRules"]
