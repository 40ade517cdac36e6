"""Why a server's process ended, from what it wrote and how it went: the same words in the container and on the host."""

from nimctl.core.diagnosis.deaths import Death, classify, last_exception, recognised
from nimctl.core.diagnosis.exits import Exit

__all__ = ["Death", "Exit", "classify", "last_exception", "recognised"]
