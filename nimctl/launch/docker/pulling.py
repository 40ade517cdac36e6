"""A pull that goes on after what passes: a registry that is down for a while, a cut line, a daemon that restarts.

What the daemon does by itself, measured with Docker 26.1.5: the classic store tries each layer five times within 50 s
and goes on inside it, and then gives the whole pull up; containerd's store gives up at the first failure, and goes on
inside the layers at the next pull.
"""

import re
import time
from collections.abc import Callable, Sequence

from nimctl.core.errors import NimctlError
from nimctl.core.pull_progress import PullProgress
from nimctl.launch.docker.engine import PULL_SILENCE, Engine, ImageInfo, Login
from nimctl.launch.docker.keeping import Keeper
from nimctl.launch.docker.pull import PullPlan, begin

# Seconds before each further try. Bytes that came in between make it begin anew: 91 s without any are too long.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
_PASSES = ("image-pull-failed", "image-rate-limited", "docker-unreachable", "docker-hangs")
# What looks like a failure of the network and does not pass by waiting.
_STAYS = re.compile(
    r"x509|certificate|http response to https client|unsupported|proxyconnect|proxy authentication|\b407\b"
    r"|nothing was heard",
    re.I,
)


def pull_patiently(
    engine: Engine,
    plan: PullPlan,
    login: Login | None = None,
    *,
    on_event: Callable[[PullProgress], None] = lambda _: None,
    on_retry: Callable[[NimctlError, float], None] = lambda _e, _s: None,
    pauses: Sequence[float] = PAUSES,
    silence: float = PULL_SILENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> ImageInfo:
    """Pull `plan` as `Engine.pull` does, again and again while it gets on; finished layers are kept in between.

    `on_retry` hears of each failure that is tried again, and after how many seconds. Raises the last failure.
    """
    keeper = Keeper(engine, plan)
    seen = begin(plan)
    most, failures, attempt = 0, 0, 0

    def on(progress: PullProgress) -> None:
        nonlocal seen
        seen = progress
        keeper.note(progress)
        on_event(progress)

    while True:
        attempt += 1
        try:
            image = engine.pull(plan, login, attempt=attempt, on_event=on, silence=silence)
        except NimctlError as error:
            keeper.leave(seen)
            failures = 1 if seen.done > most else failures + 1
            most = max(most, seen.done)
            if not passes(error) or failures > len(pauses):
                raise
            on_retry(error, pauses[failures - 1])
            sleep(pauses[failures - 1])
        except BaseException:  # Ctrl-C: the daemon ends the pull when this process goes
            keeper.leave(seen)
            raise
        else:
            keeper.done()
            return image


def passes(error: NimctlError) -> bool:
    """Whether waiting may help."""
    return error.id in _PASSES and not _STAYS.search(error.cause)
