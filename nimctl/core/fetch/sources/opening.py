"""What every remote source is opened with."""

from dataclasses import dataclass

from nimctl.core.cache import CachePaths
from nimctl.core.fetch import http
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.retry import DEFAULT, Patience


@dataclass(frozen=True)
class Opening:
    """The cache that is asked first, the keys and endpoints, the connections to use, and when to give up.

    With `refresh` the source is asked what a name stands for now, though the cache knows what it stood for.
    """

    paths: CachePaths
    access: Access
    client: http.Client
    refresh: bool = False
    patience: Patience = DEFAULT
