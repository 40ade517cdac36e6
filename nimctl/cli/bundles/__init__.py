"""Carrying a model to a host without a network: what `nimctl bundle` composes of registry, cache, lock and trust."""
