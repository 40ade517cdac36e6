"""HTTP for weights: `client` and its policy, `stream` for bodies, `session` (requests itself), `errors`.

Only importer of requests.
"""

from nimctl.core.fetch.http.answers import Answer, Denied, Target
from nimctl.core.fetch.http.client import Client, Timeouts
from nimctl.core.fetch.http.session import basic, bearer
from nimctl.core.fetch.http.stream import HttpStream

__all__ = ["Answer", "Client", "Denied", "HttpStream", "Target", "Timeouts", "basic", "bearer"]
