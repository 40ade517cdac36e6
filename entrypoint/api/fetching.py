"""One picture from the network: every address of its host judged, connected to as judged, and no step further.

The name is resolved once and the connection goes to what was found, so that a second answer of the resolver changes
nothing. No redirects, no more bytes than the limit, no longer than the deadline. A proxy is told the address, not the
name, unless the operator named the host: it must not resolve for strangers what we would not connect to.
"""

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from entrypoint.api import addresses, pictures
from entrypoint.api.addresses import Allowed, Target
from entrypoint.api.refusals import RefusedError
from entrypoint.settings.inside import MOST_PIXELS

# As much as a request body may hold.
LARGEST = 64 * 2**20
_PIECE = 64 * 1024
_HEADERS = {
    "User-Agent": "nimctl",
    "Accept": "image/png, image/jpeg, image/gif, video/*, audio/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
_UNTOLD = ("", "application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True)
class Way:
    """What may be fetched, how much of it in bytes, how many pixels, and by which proxies (scheme to URL, `no`)."""

    allowed: Allowed
    largest: int = LARGEST
    pixels: int = MOST_PIXELS
    proxies: Mapping[str, str] | None = None


def fetch(url: str, way: Way, seconds: float) -> bytes:
    """The bytes of the picture, sound or film at `url`. Blocks for `seconds` at most. Raises RefusedError."""
    target = addresses.target_of(url, way.allowed)
    deadline = time.monotonic() + seconds
    connection = _Connection(target, way, deadline)
    watch = threading.Timer(seconds, connection.cut)
    watch.daemon = True
    watch.start()
    try:
        return _fetched(connection, target, way, deadline)
    except TimeoutError:
        raise RefusedError(_late(target, seconds)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise RefusedError(_late(target, seconds)) from None
        raise RefusedError(f"Media could not be fetched from {target.host}: {type(error).__name__}") from None
    finally:
        watch.cancel()
        connection.close()


def _late(target: Target, seconds: float) -> str:
    return f"Media could not be fetched from {target.host} within {seconds:g} seconds"


def _fetched(connection: "_Connection", target: Target, way: Way, deadline: float) -> bytes:
    connection.request("GET", target.path, headers={"Host": _host_header(target), **_HEADERS})
    with connection.getresponse() as answer:
        _in_time(deadline)
        length = _check_answer(answer, target, way)
        kind = answer.getheader("Content-Type", "").partition(";")[0].strip().lower()
        data = bytearray()
        judged = False
        while piece := answer.read(_PIECE):
            data += piece
            if len(data) > way.largest:
                raise RefusedError(_large(target, way))
            _in_time(deadline)
            if not judged and len(data) >= pictures.HEADER:
                judge(bytes(data[: pictures.HEADER]), kind, way.pixels)
                judged = True
    _in_time(deadline)  # a connection that was cut looks like the end of the data
    if length is not None and len(data) < length:
        raise RefusedError(f"Media could not be fetched: {target.host} stopped after {len(data)} of {length} bytes")
    whole = bytes(data)
    if not judged:
        judge(whole[: pictures.HEADER], kind, way.pixels)
    return whole


def _in_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError


def _check_answer(answer: http.client.HTTPResponse, target: Target, way: Way) -> int | None:
    """Refuses by status and headers; the length in bytes where it is said."""
    if 300 <= answer.status < 400:
        raise RefusedError(f"Media could not be fetched: {target.host} redirects, which is not followed")
    if answer.status != 200:
        raise RefusedError(f"Media could not be fetched: {target.host} answers {answer.status}")
    if answer.getheader("Content-Encoding", "identity").strip().lower() != "identity":
        raise RefusedError(f"Media could not be fetched: {target.host} sends it compressed")
    if answer.length is not None and answer.length > way.largest:
        raise RefusedError(_large(target, way))
    return answer.length


def _large(target: Target, way: Way) -> str:
    return f"Media could not be fetched: what {target.host} sends is larger than {way.largest} bytes"


def judge(head: bytes, kind: str, pixels: int) -> None:
    """Refuses what is neither a picture in one of the formats nor declared as sound or film, and too many pixels."""
    picture = pictures.look(head)
    if picture is None:
        if kind.startswith(("video/", "audio/")) or (kind in _UNTOLD and _is_film_or_sound(head)):
            return
        raise RefusedError("What the media URL points at is no picture in the formats GIF, JPG, JPEG or PNG")
    if picture.pixels > pixels:
        raise RefusedError(pictures.too_large(picture, pixels))


def _is_film_or_sound(head: bytes) -> bool:
    if head[4:8] == b"ftyp":
        return head[8:12] not in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
    if head[:4] == b"RIFF":
        return head[8:12] in (b"AVI ", b"WAVE")
    return head.startswith((b"\x1aE\xdf\xa3", b"OggS", b"ID3", b"fLaC"))


def _host_header(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    usual = 443 if target.scheme == "https" else 80
    return host if target.port == usual else f"{host}:{target.port}"


class _Connection(http.client.HTTPConnection):
    """A connection to a judged address, by way of a proxy where the environment names one."""

    def __init__(self, target: Target, way: Way, deadline: float) -> None:
        super().__init__(target.host, target.port)
        self._target, self._way, self._deadline = target, way, deadline
        self._raw: socket.socket | None = None

    def cut(self) -> None:
        """Ends whatever is waited for: the deadline has passed."""
        if (raw := self._raw) is not None:
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection, in whatever state it is."""
        super().close()
        if self._raw is not None:
            self._raw.close()

    def connect(self) -> None:
        """Connects to the first judged address that answers. Raises RefusedError and OSError."""
        target, way = self._target, self._way
        proxy = _proxy(target, way)
        if proxy is None:
            self.sock = self._reach([str(a) for a in addresses.addresses_of(target, way.allowed)], target.port)
        else:
            self.sock = self._through(proxy)
        if target.scheme == "https":
            self.sock = self._raw = ssl.create_default_context().wrap_socket(self.sock, server_hostname=target.host)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _reach(self, hosts: list[str], port: int) -> socket.socket:
        for last, host in enumerate(hosts, 1 - len(hosts)):
            try:
                self._raw = socket.create_connection((host, port), self._left() if not last else self._left() / 2)
            except OSError:
                if not last:
                    raise
            else:
                self._raw.settimeout(self._left())
                return self._raw
        raise OSError("no address")

    def _through(self, proxy: str) -> socket.socket:
        """A tunnel to the address that we resolved, or to the name where the operator answers for it."""
        target, parts = self._target, urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme != "http" or not parts.hostname:
            raise RefusedError("Media cannot be fetched: this server's proxy is not an http:// address")
        if self._way.allowed.names(target):
            host = target.host
        else:
            host = str(addresses.addresses_of(target, self._way.allowed)[0])
        place = f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}"
        secret = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            secret = f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
        raw = self._reach([parts.hostname], parts.port or 80)
        raw.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{secret}\r\n".encode("ascii"))
        with http.client.HTTPResponse(raw, method="CONNECT") as answer:
            answer.begin()
            status = answer.status
        if status != 200:
            raise RefusedError(f"Media could not be fetched from {target.host}: the proxy answers {status}")
        return raw


def _proxy(target: Target, way: Way) -> str | None:
    """The proxy for this target, as everybody else's HTTP clients would choose it: None where it is not used."""
    proxies = way.proxies or {}
    for entry in proxies.get("no", "").split(","):
        name = entry.strip().lower().lstrip(".")
        if name and (name in ("*", target.host, _host_header(target)) or target.host.endswith(f".{name}")):
            return None
    return proxies.get(target.scheme) or proxies.get("all")
