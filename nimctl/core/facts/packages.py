"""Which packages of the distribution brought the programs that matter here, and who built them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Package:
    """An installed package. `origin`: built by the project itself or by a distribution; None where that is not told."""

    name: str
    version: str
    manager: Literal["dpkg", "rpm"]
    origin: Literal["upstream", "distribution"] | None = None
