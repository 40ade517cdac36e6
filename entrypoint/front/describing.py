"""Gets the engine's description of its API and publishes what is reachable of it as `/openapi.json`."""

import json

from entrypoint.front.model import Front
from entrypoint.front.openapi import merged
from entrypoint.state import State, write_atomically
from entrypoint.unixhttp import UnreachableError, get_unix

# The engine builds it when it is first asked, from several hundred schemas.
_SECONDS = 60.0


def publish(front: Front, state: State) -> str | None:
    """Replace `/openapi.json`. Why it could not be, in a sentence; the description of ours alone then stays."""
    try:
        answer = get_unix(state.engine_socket, "/openapi.json", timeout=_SECONDS)
        document = answer.json()
        if answer.status != 200 or not isinstance(document, dict):
            return f"the engine does not describe its API: it answers {answer.status}"
        described = merged(document, front.routes, keys=front.keys is not None)
        write_atomically(state.public / "openapi.json", json.dumps(described))
    except (UnreachableError, ValueError, OSError) as error:
        return f"the engine's description of its API cannot be used: {error}"
    return None
