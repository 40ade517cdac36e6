"""A door in front of a Docker daemon that passes requests on, and holds those that name a path."""

import contextlib
import socket
import threading
from pathlib import Path


class HeldDocker:
    """Listens on `path`, speaks to the daemon on `behind`, and keeps to itself what is sent from `hold` on.

    With `forever` nothing at all is passed on after that, as by a daemon that hangs. `held` is set when it happens.
    """

    def __init__(self, path: Path, behind: Path, hold: bytes, *, forever: bool = False) -> None:
        self.path, self.held = path, threading.Event()
        self._behind, self._hold, self._forever = behind, hold, forever
        self._door = socket.socket(socket.AF_UNIX)
        self._open: list[socket.socket] = [self._door]

    def __enter__(self) -> "HeldDocker":
        self._door.bind(str(self.path))
        self._door.listen()
        threading.Thread(target=self._welcome, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _welcome(self) -> None:
        while True:
            try:
                client = self._door.accept()[0]
            except OSError:
                return
            daemon = socket.socket(socket.AF_UNIX)
            daemon.connect(str(self._behind))
            self._open += [client, daemon]
            threading.Thread(target=self._pass, args=(client, daemon, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(daemon, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks and self._hold in data:
                    self.held.set()
                    return
                if self._forever and self.held.is_set():
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
