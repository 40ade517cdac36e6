"""What came in and what went out, kept for the questions of a test."""

import base64
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tests.lib.fault_hub.fault import Fault
from tests.lib.fault_hub.messages import Reply, Request
from tests.lib.fault_hub.rules import path_matches


@dataclass(frozen=True)
class Entry:
    """One request. `sent`: bytes of the body that the kernel took; `role` as in Reply; `asked`: the Range header.

    The kernel takes bytes ahead of the reader: after a client's death `sent` may exceed what it read by the two socket
    buffers (see `FaultHub(send_buffer=...)`).
    """

    number: int
    listener: str
    method: str
    target: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    peer: str
    status: int | None = None  # None: not yet, or never, answered
    role: str = ""
    file: str | None = None  # the file's path in its repository
    owner: str | None = None  # its repository
    faults: tuple[Fault, ...] = ()
    sent: int = 0
    stalled: bool = False
    done: bool = False

    @property
    def asked(self) -> str | None:
        return self.headers.get("range")

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


class Ledger:
    """Safe to read while requests are served; `wait_for` sleeps until something has changed."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._changed = threading.Condition()

    def opened(self, request: Request) -> int:
        """Note a request and give its number."""
        with self._changed:
            number = len(self._entries)
            headers = dict(request.headers)
            entry = Entry(number, request.listener, request.method, request.target, request.path, headers, request.peer)
            self._entries.append(entry)
            self._changed.notify_all()
            return number

    def answered(self, number: int, reply: Reply, faults: tuple[Fault, ...]) -> None:
        file = reply.file
        place = (file.path, file.owner) if file else (None, None)
        self._update(number, status=reply.status, role=reply.role, file=place[0], owner=place[1], faults=faults)

    def sending(self, number: int, send: Callable[[], int]) -> int:
        """Call `send`, which must not wait, and count what it says it sent; the count.

        Nobody can read the ledger in between: whoever has received a byte finds it counted.
        """
        with self._changed:
            count = send()
            self._entries[number] = replace(self._entries[number], sent=self._entries[number].sent + count)
            self._changed.notify_all()
            return count

    def stalled(self, number: int, now: bool) -> None:
        self._update(number, stalled=now)

    def finished(self, number: int) -> None:
        self._update(number, done=True, stalled=False)

    def _update(self, number: int, **changes: object) -> None:
        with self._changed:
            self._entries[number] = replace(self._entries[number], **changes)  # type: ignore[arg-type]
            self._changed.notify_all()

    def mark(self) -> int:
        """How many requests there have been so far; pass it as `since` to look at later ones only."""
        with self._changed:
            return len(self._entries)

    def requests(
        self, pattern: str = "*", *, listener: str | None = None, role: str | None = None, since: int = 0
    ) -> list[Entry]:
        """The requests so far, oldest first. The pattern is as in `hub.fail`; "*" is all."""
        with self._changed:
            entries = self._entries[since:]
        return [
            entry
            for entry in entries
            if (pattern == "*" or path_matches(pattern, entry.path, entry.file))
            and listener in (None, entry.listener)
            and role in (None, entry.role)
        ]

    def bytes_sent(self, pattern: str = "*", *, listener: str | None = None, since: int = 0) -> int:
        """Bytes of files' bodies; what answers of other kinds carry is not counted."""
        found = self.requests(pattern, listener=listener, role="content", since=since)
        return sum(entry.sent for entry in found)

    def credentials_seen(self, *, listener: str | None = None) -> set[str]:
        """Every value of Authorization and Cookie that a listener was given."""
        names = ("authorization", "cookie")
        found = self.requests(listener=listener)
        return {entry.headers[name] for entry in found for name in names if name in entry.headers}

    def knows(self, secret: str, *, listener: str | None = None) -> bool:
        """Whether the secret reached a listener in any header or address, plain or inside Basic credentials."""
        for entry in self.requests(listener=listener):
            for text in (entry.target, *entry.headers.values()):
                if secret in text or secret in _decoded(text):
                    return True
        return False

    def wait_for(self, condition: Callable[["Ledger"], object], seconds: float = 20) -> None:
        """Until the condition holds. Raises AssertionError with the requests so far when it does not in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), seconds):
                raise AssertionError("it did not happen in time; so far:\n" + "\n".join(map(str, self._entries)))


def _decoded(text: str) -> str:
    scheme, _, value = text.partition(" ")
    if scheme != "Basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace")
    except ValueError:
        return ""
