"""Readers of security advisories as their publishers write them."""


class SourceError(Exception):
    """An advisory says something that is not understood; nothing is written then."""
