"""Keys and certificates that change while the server runs: nginx gets the new ones, and no answer is cut off for it.

A mounted secret changes when its owner renews it. nginx then starts new workers and lets the old ones finish what they
are sending: https://nginx.org/en/docs/control.html#reconfiguration
"""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from entrypoint.front.keys import read_keys, render_keys
from entrypoint.front.model import Front, Tls
from entrypoint.state import State, write_atomically


class Renewal:
    """Looks at the files; `check_tls` refuses new TLS files that nginx could not use."""

    def __init__(self, front: Front, state: State, nginx: int, *, check_tls: Callable[[Tls], None] | None) -> None:
        self._front = front
        self._state = state
        self._nginx = nginx
        self._check_tls = check_tls
        self._key_files = (front.keys.file,) if front.keys is not None else ()
        tls = front.tls
        self._tls_files = () if tls is None else tuple(p for p in (tls.key, tls.certificate, tls.authorities) if p)
        self._seen = {path: _stamp(path) for path in self._key_files + self._tls_files}

    def look(self) -> str | None:
        """What happened, in a sentence, if anything changed. A file that cannot be used leaves everything as it is.

        Raises `config-invalid` for that, once a change.
        """
        now = {path: _stamp(path) for path in self._seen}
        changed = [path for path, stamp in now.items() if stamp is not None and stamp != self._seen[path]]
        if not changed:
            return None
        self._seen |= {path: now[path] for path in changed}
        if self._front.tls is not None and self._check_tls and any(path in self._tls_files for path in changed):
            self._check_tls(self._front.tls)
        if self._front.keys is not None and any(path in self._key_files for path in changed):
            self._front = replace(self._front, keys=read_keys(self._front.keys.file))
            assert self._front.keys is not None
            write_atomically(self._state.keys_config, render_keys(self._front.keys), mode=0o600)
        try:
            os.kill(self._nginx, signal.SIGHUP)
        except ProcessLookupError:
            return None  # its end is told elsewhere
        return f"{', '.join(map(str, changed))} changed: new requests are judged by the new content"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
