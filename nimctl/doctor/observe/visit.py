"""One request to one host: how far it gets, in the words of the facts. Standard library alone, and no key is sent."""

import email.utils
import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from nimctl import __version__
from nimctl.core.facts import HostReach, Reached
from nimctl.core.secret import redact
from nimctl.doctor import proxies
from nimctl.doctor.observe.trust import BundleError, Trust, unverified

# How OpenSSL words the two refusals that a wrong clock causes; the fetching code knows them by the same words.
_CLOCK = ("certificate has expired", "certificate is not yet valid")
_REGISTRIES = "image"  # how the purposes begin whose hosts are registries


class UnreachedError(Exception):
    """The host did not answer: the state, and why in a clause."""

    def __init__(self, state: Reached, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


@dataclass(frozen=True)
class Way:
    """What the visits of one look share. It began at `started` and must be over at `deadline` of time.monotonic."""

    environment: Mapping[str, str]
    trust: Trust
    started: float
    deadline: float

    @property
    def seconds(self) -> str:
        """The time given, in words."""
        return f"{self.deadline - self.started:.1f} s"

    def left(self) -> float:
        """Seconds left, and never none: to a socket that would mean not to wait at all."""
        return max(0.01, self.deadline - time.monotonic())


class Visit:
    """A request to `url`, https or http. `late` says meanwhile what it would mean if nothing more was heard of it."""

    def __init__(self, url: str, purpose: str, way: Way) -> None:
        parts = urlsplit(url)
        self._parts = parts
        self._host = parts.hostname or ""
        self._authority = parts.netloc.rpartition("@")[2]
        self._tls = parts.scheme == "https"
        self._url = f"{parts.scheme}://{self._authority}{parts.path}"
        self._purpose = purpose
        self._way = way
        self._proxy: proxies.Proxy | None = None
        self._hanging: tuple[Reached, str] = ("timeout", "nothing was tried")

    def late(self) -> HostReach:
        """The answer of a visit that was left behind."""
        state, doing = self._hanging
        return self._told(state, f"{doing} within {self._way.seconds}")

    def make(self) -> HostReach:
        """Go there. Never raises."""
        try:
            return self._told("ok", skew=self._go())
        except UnreachedError as error:
            skew = self._skew_unverified() if error.state == "clock" else None
            return self._told(error.state, error.detail, skew)
        except Exception as error:  # whatever else goes wrong on the way: the host was not reached
            return self._told("failed", type(error).__name__)

    def _told(self, state: Reached, detail: str | None = None, skew: float | None = None) -> HostReach:
        via = self._proxy.name if self._proxy else None
        secrets = [self._proxy.login] if self._proxy and self._proxy.login else []
        return HostReach(self._url, self._purpose, state, redact(detail, secrets) if detail else None, via, skew)

    def _go(self) -> float | None:
        """The skew that the host's answer tells. Raises UnreachedError."""
        value = proxies.proxy_for(self._url, self._way.environment)
        if value is not None:
            try:
                self._proxy = proxies.parse(value)
            except ValueError as error:
                raise UnreachedError("proxy", f"the proxy cannot be used: {error}") from None
        if not self._tls:
            return self._exchange(None)
        with suppress(ssl.SSLCertVerificationError):
            if quick := self._way.trust.quick():
                return self._exchange(quick)
        try:
            return self._exchange(self._way.trust.whole(self._registry))
        except ssl.SSLCertVerificationError as error:
            words = error.verify_message
            if any(known in words for known in _CLOCK):
                raise UnreachedError("clock", f"its {words}") from None
            raise UnreachedError("tls", words) from None
        except BundleError as error:
            raise UnreachedError("tls", str(error)) from None

    @property
    def _registry(self) -> str | None:
        return self._authority if self._purpose.startswith(_REGISTRIES) else None

    def _exchange(self, context: ssl.SSLContext | None) -> float | None:
        """One connection and one question. Raises UnreachedError, SSLCertVerificationError and BundleError."""
        line = self._connect_near()
        try:
            with self._in_words():
                if context is not None:
                    if self._proxy:
                        self._tunnel(line)
                    self._hanging = ("timeout", "its TLS handshake did not end")
                    line.settimeout(self._way.left())
                    line = context.wrap_socket(line, server_hostname=self._host)
                return self._ask(line)
        finally:
            line.close()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except ssl.SSLCertVerificationError:
            raise
        except TimeoutError:
            raise self._too_late() from None
        except ssl.SSLError as error:
            raise UnreachedError("failed", f"its TLS failed ({error.reason or 'it hung up'})") from None
        except http.client.RemoteDisconnected:
            raise UnreachedError("failed", "it hung up without an answer") from None
        except OSError as error:
            raise UnreachedError("failed", error.strerror or "it hung up") from None
        except http.client.HTTPException as error:
            raise UnreachedError("failed", f"its answer is not HTTP ({type(error).__name__})") from None

    def _too_late(self) -> UnreachedError:
        return UnreachedError("timeout", f"{self._hanging[1]} within {self._way.seconds}")

    def _connect_near(self) -> socket.socket:
        """A connection to the proxy where there is one, else to the host."""
        if self._proxy is None:
            return self._connect(self._host, self._parts.port or (443 if self._tls else 80))
        try:
            line = self._connect(self._proxy.host, self._proxy.port)
        except UnreachedError as error:
            raise UnreachedError("proxy", f"the proxy does not answer: {error.detail}") from None
        if self._proxy.scheme == "https":
            line.settimeout(self._way.left())
            with self._in_words():
                return self._way.trust.whole(self._registry).wrap_socket(line, server_hostname=self._proxy.host)
        return line

    def _connect(self, host: str, port: int) -> socket.socket:
        self._hanging = ("proxy" if self._proxy else "dns", f"the name {host} was not resolved")
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise UnreachedError("dns", f"the name {host} was not resolved ({error.strerror})") from None
        except UnicodeError:
            raise UnreachedError("dns", f"{host[:80]!r} is no name of a host") from None
        self._hanging = ("proxy" if self._proxy else "timeout", f"{host}:{port} did not accept the connection")
        failures: list[UnreachedError] = []
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            line = socket.socket(family, kind, protocol)
            # an address that swallows everything, often the IPv6 one, leaves time for the others
            line.settimeout(max(0.01, self._way.left() / (len(addresses) - position)))
            try:
                line.connect(address)
            except TimeoutError:
                failures.append(self._too_late())
            except ConnectionRefusedError:
                failures.append(UnreachedError("refused", f"{host}:{port} refuses the connection"))
            except OSError as error:
                failures.append(UnreachedError("failed", f"{host}:{port}: {error.strerror}"))
            else:
                return line
            line.close()
        raise next((failure for failure in failures if failure.state != "failed"), failures[-1])

    def _tunnel(self, line: socket.socket) -> None:
        """Have the proxy connect to the host. Raises UnreachedError where it does not."""
        target = f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._parts.port or 443}"
        self._hanging = ("timeout", "the proxy did not open a tunnel")
        line.settimeout(self._way.left())
        line.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{self._login()}\r\n".encode("latin-1"))
        status, _ = _answer(line, "CONNECT")
        if status != 200:
            raise _refused_by_proxy(status)

    def _ask(self, line: socket.socket) -> float | None:
        """Ask for the head of the address, and return the skew. Every answer of the host counts as one."""
        through_plain_proxy = self._proxy is not None and not self._tls
        path = self._parts.path or "/"
        target = f"http://{self._authority}{path}" if through_plain_proxy else path
        lines = (f"HEAD {target} HTTP/1.1", f"Host: {self._authority}", f"User-Agent: nimctl/{__version__}")
        login = self._login() if through_plain_proxy else ""
        head = "\r\n".join((*lines, "Accept: */*", f"Connection: close\r\n{login}\r\n"))
        self._hanging = ("timeout", "it did not answer")
        line.settimeout(self._way.left())
        sent = time.time()
        line.sendall(head.encode("latin-1"))
        status, date = _answer(line, "HEAD")
        middle = (sent + time.time()) / 2
        # What a proxy says when it cannot go there; a 403 may as well be the host's own, which is an answer.
        if through_plain_proxy and status in (407, 502, 503, 504):
            raise _refused_by_proxy(status)
        with suppress(ValueError, TypeError, OverflowError):
            return round(middle - email.utils.parsedate_to_datetime(date).timestamp(), 1)
        return None

    def _login(self) -> str:
        login = self._proxy.login if self._proxy else None
        return f"Proxy-Authorization: Basic {login.reveal()}\r\n" if login else ""

    def _skew_unverified(self) -> float | None:
        """What the host says of the time, when its certificate was refused because of the time."""
        with suppress(Exception):
            return self._exchange(unverified())
        return None


def _answer(line: socket.socket, method: str) -> tuple[int, str]:
    """Status and Date of the answer. Raises OSError and HTTPException."""
    answer = http.client.HTTPResponse(line, method=method)
    try:
        answer.begin()
        return answer.status, answer.headers.get("Date", "")
    finally:
        answer.close()


def _refused_by_proxy(status: int) -> UnreachedError:
    """In the words of the standard: the proxy's own might repeat what it was sent."""
    return UnreachedError("proxy", f"the proxy answered {status} {http.client.responses.get(status, '')}".strip())
