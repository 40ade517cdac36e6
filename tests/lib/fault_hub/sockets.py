"""A listening socket with one thread a connection, which ends at once however its clients behave."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable

Serve = Callable[[socket.socket, str], None]


class Acceptor:
    """Hands each connection to `serve(socket, peer)` in a thread of its own; `close` ends every one of them."""

    def __init__(self, host: str, serve: Serve, *, tls: ssl.SSLContext | None = None, send_buffer: int = 0) -> None:
        self._serve, self._tls, self._send_buffer = serve, tls, send_buffer
        self._socket = socket.create_server((host, 0), family=socket.AF_INET, backlog=128)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name=f"fault-hub-{self.port}", daemon=True)
        self._acceptor.start()

    @property
    def connections(self) -> int:
        """How many are open now."""
        with self._lock:
            return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                return  # close() shut the socket down
            peer = f"{address[0]}:{address[1]}"
            thread = threading.Thread(target=self._run, args=(connection, peer), daemon=True)
            with self._lock:
                if self._closing:
                    connection.close()
                    return
                self._open.add(connection)
                self._threads.add(thread)
                thread.start()

    def _run(self, plain: socket.socket, peer: str) -> None:
        connection = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._send_buffer:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
            if self._tls is not None:
                connection = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                self._swap(plain, connection)
                connection.do_handshake()
            self._serve(connection, peer)
        except (OSError, ValueError):
            pass  # the client went, or close() took the socket away: both are a connection's ordinary end
        finally:
            with self._lock:
                self._open.discard(connection)
                self._threads.discard(threading.current_thread())
            connection.close()

    def _swap(self, old: socket.socket, new: socket.socket) -> None:
        with self._lock:
            self._open.discard(old)
            self._open.add(new)
            if self._closing:
                raise ConnectionAbortedError("the listener closes")

    def close(self) -> None:
        """Ends the listener, its connections and their threads."""
        with self._lock:
            self._closing = True
            threads = list(self._threads)
            for connection in self._open:
                with contextlib.suppress(OSError):
                    # The plain shutdown wakes a blocked reader or writer; SSLSocket's own would touch its state.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in (self._acceptor, *threads):
            thread.join(30)
            if thread.is_alive():
                raise AssertionError(f"{thread.name} does not end")


def reset(connection: socket.socket) -> None:
    """Make the coming close send RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
