"""The state folder: every run-time file of one server, and the one place that knows their names.

<state>/            0700, owned by us          <state>/public/     what nginx may serve
  lock                one server a folder         startup.json       the start, stage by stage
  engine.sock         the engine                  unready.json       body of `ready` while it is 503
  front.sock          nginx's own counters        refusal.json       body of API calls while not ready
  public.sock         our own way in under TLS    ready              there only while we are ready
  nginx.conf, temp/   the front                   metadata.json ...  NIM's static documents
  keys.conf           the keys of clients         openapi.json       the API's description
  requests.log        route and status of each request, to be counted
  crash.json          what ended the last run
"""

import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.errors import NimctlError

# sun_path of unix(7) holds 108 bytes with the closing zero.
_LONGEST_SOCKET = 107


@dataclass(frozen=True)
class State:
    """Paths below the state folder."""

    root: Path

    @property
    def public(self) -> Path:
        """The files that nginx serves."""
        return self.root / "public"

    @property
    def ready(self) -> Path:
        """Exists while the service is ready; nginx looks at it on every request."""
        return self.public / "ready"

    @property
    def metrics(self) -> Path:
        """The server's own metrics, which nginx puts before the engine's."""
        return self.public / "metrics.txt"

    @property
    def engine_socket(self) -> Path:
        """Where the engine listens."""
        return self.root / "engine.sock"

    @property
    def front_socket(self) -> Path:
        """Where nginx gives its counters of open requests to the supervisor."""
        return self.root / "front.sock"

    @property
    def public_socket(self) -> Path:
        """Where nginx listens for ourselves when the public port speaks TLS: the same server, without a certificate."""
        return self.root / "public.sock"

    @property
    def keys_config(self) -> Path:
        """The part of nginx's configuration that holds the clients' keys; 0600."""
        return self.root / "keys.conf"

    @property
    def request_log(self) -> Path:
        """A line for each answered request, written by nginx, counted and thrown away by the supervisor."""
        return self.root / "requests.log"

    @property
    def nginx_config(self) -> Path:
        """The rendered configuration; holds the warm-up token, so it is 0600."""
        return self.root / "nginx.conf"

    @property
    def temp(self) -> Path:
        """nginx's temporary files."""
        return self.root / "temp"

    @property
    def crash(self) -> Path:
        """The crash record of the last run that failed."""
        return self.root / "crash.json"


def open_state(root: Path) -> State:
    """Make the folder ready for a new run: private, owned, alone, and free of the leftovers of the last one.

    Raises `config-invalid` (not ours, not writable, path too long), `disk-full`, `name-in-use` (a server uses it).
    The lock is held until the process ends.
    """
    state = State(root)
    if len(os.fsencode(state.engine_socket)) > _LONGEST_SOCKET:
        raise _unusable(root, f"a Unix socket path may have {_LONGEST_SOCKET} bytes", "Choose a shorter folder.")
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.is_symlink() or root.stat().st_uid != os.geteuid():
            raise _unusable(root, "another user owns it", "Name a folder of your own.")
        root.chmod(0o700)
        _lock(root)
        for folder in (state.public, state.temp):
            folder.mkdir(mode=0o700, exist_ok=True)
        sockets = (state.engine_socket, state.front_socket, state.public_socket)
        for leftover in (state.ready, state.crash, *sockets, state.request_log, *state.public.iterdir()):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NimctlError(
                "disk-full",
                f"{root} has no room left",
                cause=str(error),
                fix="Free space, or give the container a larger --tmpfs /tmp.",
            ) from error
        raise _unusable(root, str(error), "Mount a writable folder there (--tmpfs /tmp), or name another.") from error
    return state


def _lock(root: Path) -> None:
    descriptor = os.open(root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise NimctlError(
            "name-in-use",
            f"{root} belongs to a server that is running",
            cause="its lock is held",
            fix="Stop that server, or set NIMCTL_STATE_DIR to another folder.",
        ) from error


def _unusable(root: Path, cause: str, fix: str) -> NimctlError:
    return NimctlError("config-invalid", f"NIMCTL_STATE_DIR={root} cannot be used", cause=cause, fix=fix)


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace `path` by `text`, so that a reader sees the old or the new document and never half of one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
