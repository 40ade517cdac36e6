"""The fault hub itself: listeners, what they serve, what goes wrong, and what was seen."""

import hashlib
import ssl
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from tests.lib.fault_hub.certificates import Certificates, make_certificates
from tests.lib.fault_hub.content import Content, Lie, StoredFile, as_content
from tests.lib.fault_hub.fault import Fault
from tests.lib.fault_hub.hugging_face import TOKEN, HuggingFace
from tests.lib.fault_hub.ledger import Entry, Ledger
from tests.lib.fault_hub.messages import Reply, Request, content_reply, json_reply
from tests.lib.fault_hub.ngc import KEY, Ngc
from tests.lib.fault_hub.rules import Rule, Rules, Term, parse
from tests.lib.fault_hub.sockets import Acceptor
from tests.lib.fault_hub.wire import Gate, Service

# Another listener is another host name wherever that matters: 127.0.0.0/8 is all loopback on Linux.
HOSTS = {"hub": "127.0.0.1", "cdn": "127.0.0.2", "xfiles": "127.0.0.3", "foreign": "localhost"}
_CERTIFIED = (*sorted(set(HOSTS.values())), "127.0.0.4", "127.0.0.5")


SEND_BUFFER = 2**16
UNREAD = 2**20  # with such a `send_buffer`: bytes of one connection that are sent and no client ever reads, at most


class FaultHub:
    """Every listener answers every address: "hub" is meant for APIs, "cdn" and "xfiles" for presigned addresses of the
    Hub and of NGC, "foreign" for nobody. With `tls` all of them speak HTTPS under `ca_file`; `valid` is the
    certificate's time. `send_buffer` (bytes) bounds what the kernel takes ahead of a reader. `hosts` are the listeners'
    addresses, others than loopback for clients in containers.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        valid: tuple[datetime, datetime] | None = None,
        send_buffer: int = 0,
        hosts: Mapping[str, str] = HOSTS,
    ) -> None:
        self.ledger, self.hugging_face, self.ngc = Ledger(), HuggingFace(), Ngc()
        self._rules, self._gate, self._send_buffer, self._valid = Rules(), Gate(), send_buffer, valid
        self._service = Service(self._route, self, self._rules, self.ledger, self._gate)
        self._listeners: dict[str, tuple[Acceptor, str]] = {}
        self._mirror: dict[str, StoredFile] = {}
        self._by_link: dict[str, StoredFile] = {}
        self._link_generation = 1
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._certificates: Certificates | None = None
        for name, host in hosts.items():
            self.listen(name, host, tls=tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every listener, connection and thread, stalled or not."""
        self._gate.close()
        for acceptor, _ in self._listeners.values():
            acceptor.close()
        if self._folder is not None:
            self._folder.cleanup()

    # where it listens

    def listen(self, name: str, host: str = "127.0.0.1", *, tls: bool = False) -> str:
        """Open one more listener on a loopback host; its address."""
        assert name not in self._listeners, f"{name} listens already, and would never be closed"
        context: ssl.SSLContext | None = self.certificates.server_context() if tls else None
        serve = partial(self._service.serve, name)
        acceptor = Acceptor(host, serve, tls=context, send_buffer=self._send_buffer)
        self._listeners[name] = acceptor, f"{'https' if tls else 'http'}://{host}:{acceptor.port}"
        return self.url_of(name)

    def url_of(self, listener: str) -> str:
        return self._listeners[listener][1]

    @property
    def url(self) -> str:
        """`scheme://host:port` of the listener "hub": HF_ENDPOINT, and the NGC endpoints too."""
        return self.url_of("hub")

    @property
    def files_url(self) -> str:
        """Where `add_file` puts things."""
        return f"{self.url}/files"

    @property
    def connections(self) -> int:
        """How many are open now, over all listeners."""
        return sum(acceptor.connections for acceptor, _ in self._listeners.values())

    @property
    def certificates(self) -> Certificates:
        if self._certificates is None:
            self._folder = tempfile.TemporaryDirectory(prefix="fault-hub-")
            self._certificates = make_certificates(Path(self._folder.name), _CERTIFIED, valid=self._valid)
        return self._certificates

    @property
    def ca_file(self) -> Path:
        return self.certificates.ca_file

    # what it serves

    def add_repo(
        self,
        name: str,
        files: Mapping[str, bytes | Content],
        *,
        revision_name: str = "main",
        gated: str | None = None,
        private: bool = False,
        gated_listing: bool = False,
        token: str = TOKEN,
        lies: Mapping[str, Lie] | None = None,
    ) -> str:
        """A commit of a Hub model; its id. Again with the same name: one more commit. `token` has access."""
        access: dict[str, Any] = {"gated": gated, "private": private, "gated_listing": gated_listing, "token": token}
        return self.hugging_face.add(name, _contents(files), lies or {}, revision_name, **access)

    def add_ngc(
        self,
        name: str,
        version: str,
        files: Mapping[str, bytes | Content],
        *,
        key: str = KEY,
        public: bool = False,
        lies: Mapping[str, Lie] | None = None,
    ) -> None:
        """A version of an NGC model, `name` being org/team/model or org/model. `key` has access; public: anybody."""
        self.ngc.add(name, version, _contents(files), lies or {}, key, public)

    def add_file(self, path: str, content: bytes | Content, *, lie: Lie | None = None) -> str:
        """A file of the mirror; its address."""
        self._mirror[path] = StoredFile("", path, as_content(content), lie=lie or Lie())
        return f"{self.files_url}/{quote(path)}"

    def presigned(self, listener: str, file: StoredFile) -> str:
        """An address that serves `file` to whoever has it, until `expire_links`."""
        key = hashlib.sha256(f"{file.owner}\0{file.path}\0{file.blob_id}".encode()).hexdigest()[:32]
        self._by_link[key] = file
        signature = hashlib.sha256(f"{key}{self._link_generation}".encode()).hexdigest()
        query = f"X-Amz-Expires=3600&X-Amz-Generation={self._link_generation}&X-Amz-Signature={signature}"
        return f"{self.url_of(listener)}/presigned/{key}/{quote(file.path)}?{query}"

    def expire_links(self) -> None:
        """Every presigned address given so far answers 403, as an object store does when its time is over."""
        self._link_generation += 1

    # what goes wrong

    def fail(
        self,
        pattern: str,
        *faults: Fault | str,
        times: int | None = None,
        skip: int = 0,
        listener: str | None = None,
        method: str | None = None,
        on: str | None = None,
        when: Callable[[Request], bool] | None = None,
    ) -> Rule:
        """Spoil the requests that match (see `rules`): `faults` together, `times` times after `skip` good answers.

        A single text is a sequence in the notation of `rules`. Faults of the body meet GET alone unless `method` says
        otherwise ("*": all). The first rule with something to say decides.
        """
        if len(faults) == 1 and isinstance(faults[0], str):
            terms = parse(faults[0])
            if times is not None:
                raise ValueError("a text says itself how often")
        else:
            values = tuple(fault for fault in faults if not isinstance(fault, str))
            if len(values) != len(faults):
                raise ValueError("a text stands alone")
            terms = (Term(values, times),)
        if skip:
            terms = (Term((), skip), *terms)
        return self._rules.add(Rule(pattern, terms, listener, method, on, when))

    def heal(self) -> None:
        """Nothing goes wrong from now on; stalled answers go on."""
        self._rules.clear()
        self.release()

    def release(self) -> None:
        """Let every stalled answer go on."""
        self._gate.release()

    # what was seen

    def requests(
        self, pattern: str = "*", *, listener: str | None = None, role: str | None = None, since: int = 0
    ) -> list[Entry]:
        """See Ledger.requests."""
        return self.ledger.requests(pattern, listener=listener, role=role, since=since)

    def bytes_sent(self, pattern: str = "*", *, listener: str | None = None, since: int = 0) -> int:
        """Bytes of files' bodies that left for clients."""
        return self.ledger.bytes_sent(pattern, listener=listener, since=since)

    def credentials_seen(self, *, listener: str | None = None) -> set[str]:
        """Values of Authorization and Cookie that a listener was given."""
        return self.ledger.credentials_seen(listener=listener)

    def knows(self, secret: str, *, listener: str | None = None) -> bool:
        """Whether a secret reached a listener in any form."""
        return self.ledger.knows(secret, listener=listener)

    def wait_for(self, condition: Callable[[Ledger], object], seconds: float = 20) -> None:
        """Until the ledger fulfils the condition; AssertionError when it does not in time."""
        self.ledger.wait_for(condition, seconds)

    def wait_for_stalls(self, count: int = 1, seconds: float = 20) -> None:
        """Until so many answers stand still."""
        self.wait_for(lambda ledger: sum(entry.stalled for entry in ledger.requests()) >= count, seconds)

    # how it answers

    def _route(self, request: Request) -> Reply:
        if request.path.startswith("/presigned/"):
            return self._stored(request)
        if request.path.startswith("/files/"):
            file = self._mirror.get(request.path.removeprefix("/files/"))
            return _missing() if file is None else content_reply(request, file, file.storage_etag)
        return self.ngc.answer(request) or self.hugging_face.answer(request) or _missing()

    def _stored(self, request: Request) -> Reply:
        file = self._by_link.get(request.path.split("/")[2])
        if file is None:
            return _missing()
        if request.authorization is not None:
            # An object store takes one way of proving who asks, and refuses two:
            # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (InvalidArgument)
            return _xml(400, "InvalidArgument", "Only one auth mechanism allowed")
        if request.query.get("X-Amz-Generation") != str(self._link_generation):
            return _xml(403, "AccessDenied", "Request has expired")
        return content_reply(request, file, file.storage_etag)


def _contents(files: Mapping[str, bytes | Content]) -> dict[str, Content]:
    return {path: as_content(data) for path, data in files.items()}


def _missing() -> Reply:
    return json_reply(404, {"error": "nothing is here"}, role="other")


def _xml(status: int, code: str, message: str) -> Reply:
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status).with_body(text.encode(), Content_Type="application/xml")
