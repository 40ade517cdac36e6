"""HTTP requests to registries, with the care that credentials need.

The standard library alone: `requests` belongs to the weights. urllib's own redirect handler is left out, because it
hands `Authorization` on to whatever host it is sent to.
"""

import contextlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from nimctl import __version__
from nimctl.core.errors import NimctlError
from nimctl.registry.reference import is_loopback

TIMEOUT = 15.0  # seconds for every single step: connect, each read
MAX_REDIRECTS = 5
_BY_CLOCK = (9, 10)  # OpenSSL's numbers for a certificate that is not valid yet, and for one that is no longer
_CLOCK_TIMEOUT = 2.0  # seconds for the look at the other side's clock
_SKEW = 60.0  # seconds between two clocks that mean nothing
_REDIRECTS = (301, 302, 303, 307, 308)
MAX_BODY = 4 * 2**20  # bytes; no registry accepts larger manifests

# Where docker looks for the CA of a private registry: https://docs.docker.com/engine/security/certificates/
_CERTS = Path("/etc/docker/certs.d")


@dataclass(frozen=True)
class Response:
    """An answer of any status. Header names are in lower case; `challenges` are the WWW-Authenticate lines."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    challenges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Incoming:
    """An answer whose body still comes (that of a refusal is in `response` already)."""

    response: Response
    host: str
    stream: Any

    def blocks(self, size: int) -> Iterator[bytes]:
        """The body in blocks of at most `size` bytes. Raises `image-pull-failed` when it ends early."""
        told = self.response.headers.get("content-length", "")
        missing = int(told) if told.isdecimal() else None
        while True:
            with _translated(self.host):
                block = self.stream.read(size)
            if not block:
                break
            missing = None if missing is None else missing - len(block)
            yield block
        if missing:
            raise _failure(self.host, f"the connection ended {missing} bytes too early")


def send(method: str, url: str, headers: Mapping[str, str] | None = None, *, data: bytes | None = None) -> Response:
    """One request, redirects of GET and HEAD followed: at most 5, never from https to http.

    `Authorization` goes to the host it was given for and to no other. Honours HTTPS_PROXY, HTTP_PROXY, NO_PROXY (never
    for this machine itself) and SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE. Raises `image-pull-failed` when no
    answer comes.
    """
    origin, carried = urlsplit(address(url)), dict(headers or {})
    for _ in range(MAX_REDIRECTS + 1):
        response = _exchange(method, url, carried, data)
        location = response.headers.get("location")
        if method not in ("GET", "HEAD") or response.status not in _REDIRECTS or not location:
            return response
        url, carried = _next(origin, url, location, carried)
    raise _failure(origin.netloc, f"it redirected more than {MAX_REDIRECTS} times")


@contextlib.contextmanager
def receive(url: str, headers: Mapping[str, str]) -> Iterator[Incoming]:
    """A GET whose body is read in blocks; redirects, credentials, proxies and errors as in `send`."""
    origin, carried = urlsplit(address(url)), dict(headers)
    for _ in range(MAX_REDIRECTS + 1):
        with _opened("GET", url, carried, None) as answer:
            response = _head(answer)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location:
                if response.status >= 400:
                    with _translated(urlsplit(url).netloc):
                        response = replace(response, body=answer.read(MAX_BODY))
                yield Incoming(response, urlsplit(url).netloc, answer)
                return
        url, carried = _next(origin, url, location, carried)
    raise _failure(origin.netloc, f"it redirected more than {MAX_REDIRECTS} times")


def address(base: str, location: str = "") -> str:
    """The address of http or https that `location` means, which an answer of `base` names.

    Raises `image-pull-failed` for any other.
    """
    with contextlib.suppress(ValueError):  # brackets that hold no address
        url = urljoin(base, location)
        if urlsplit(url).scheme in ("http", "https"):
            return url
    raise _failure(base.partition("://")[2].partition("/")[0], "it names an address that is neither http nor https")


def _next(origin: SplitResult, url: str, location: str, carried: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Where a redirect leads, and what is carried there."""
    url = address(url, location)
    target = urlsplit(url)
    if origin.scheme == "https" and target.scheme == "http":
        raise _failure(origin.netloc, "it redirected from https to an address that is not https")
    if (target.scheme, target.netloc) != (origin.scheme, origin.netloc):
        carried = {name: value for name, value in carried.items() if name.lower() != "authorization"}
    return url, carried


def _exchange(method: str, url: str, headers: Mapping[str, str], data: bytes | None) -> Response:
    with _opened(method, url, headers, data) as answer, _translated(urlsplit(url).netloc):
        body = answer.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            raise _failure(urlsplit(url).netloc, f"its answer is larger than {MAX_BODY} bytes")
        return replace(_head(answer), body=body)


@contextlib.contextmanager
def _opened(method: str, url: str, headers: Mapping[str, str], data: bytes | None) -> Iterator[Any]:
    with _translated(urlsplit(url).netloc):
        request = urllib.request.Request(url, data, {"User-Agent": f"nimctl/{__version__}", **headers}, method=method)  # noqa: S310 (`address` has seen it)
        answer = _opener(url).open(request, timeout=TIMEOUT)
    with contextlib.closing(answer):
        yield answer


def _head(answer: Any) -> Response:
    lines = {name.lower(): value for name, value in answer.headers.items()}
    return Response(int(answer.status), lines, b"", tuple(answer.headers.get_all("WWW-Authenticate") or ()))


@contextlib.contextmanager
def _translated(host: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.URLError as error:
        why = error.reason
        dated = isinstance(why, ssl.SSLCertVerificationError) and why.verify_code in _BY_CLOCK
        raise (_clock_wrong(host, _words(why)) if dated else None) or _failure(host, _words(why)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _failure(host, _words(error)) from None
    except ValueError:
        # Its text would quote the header, and so the key.
        raise _failure(
            host, "the request could not be written: an address or a header holds forbidden characters"
        ) from None


def _clock_wrong(host: str, words: str) -> NimctlError | None:
    """The error where `host` says another time than this machine; None where it agrees, or cannot be asked.

    Its certificate is not checked for this: nothing is sent but the question, and its time is only shown.
    """
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    try:
        request = urllib.request.Request(f"https://{host}/v2/", method="HEAD")
        with contextlib.closing(_opener(request.full_url, unchecked).open(request, timeout=_CLOCK_TIMEOUT)) as answer:
            there = parsedate_to_datetime(answer.headers.get("Date", "")).astimezone(UTC)
    except (OSError, http.client.HTTPException, ValueError, TypeError, OverflowError):
        return None
    here = datetime.now(UTC)
    if abs((here - there).total_seconds()) < _SKEW:
        return None
    return NimctlError(
        "clock-wrong",
        f"{host} cannot be trusted by this machine's clock: {words}",
        cause=f"this machine's clock shows {here:%Y-%m-%d %H:%M:%S} UTC, and {host} says {there:%Y-%m-%d %H:%M:%S} UTC",
        fix="Set the clock: `sudo timedatectl set-ntp true`, then look at it with `timedatectl`.",
    )


def _opener(url: str, context: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    host = urlsplit(url).netloc
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler({} if is_loopback(host) else None))
    opener.add_handler(urllib.request.HTTPHandler())
    if url.startswith("https:"):
        bundles = tuple(os.environ[name] for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name))
        opener.add_handler(urllib.request.HTTPSHandler(context=context or _tls(host, bundles)))
    return opener


@cache  # reading all CAs takes longer than the request
def _tls(host: str, bundles: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.create_default_context()  # reads SSL_CERT_FILE and SSL_CERT_DIR
    extra = list(map(Path, bundles))
    with contextlib.suppress(OSError):
        extra += sorted((_CERTS / host).glob("*.crt"))
    for bundle in extra:
        try:
            context.load_verify_locations(
                cafile=bundle if bundle.is_file() else None, capath=bundle if bundle.is_dir() else None
            )
        except (OSError, TypeError) as error:
            raise _failure(host, f"the CA bundle {bundle} cannot be read ({error})") from None
    return context


def _words(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "it did not answer in time"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message})"
    if isinstance(reason, http.client.HTTPException):
        return f"its answer is not HTTP ({type(reason).__name__})"
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


def _failure(host: str, cause: str) -> NimctlError:
    proxies = {} if is_loopback(host) else urllib.request.getproxies()
    proxy = next((proxies[kind] for kind in ("https", "all", "http") if proxies.get(kind)), "")
    if proxy and not urllib.request.proxy_bypass(host):
        cause += f"; tried through the proxy {urlsplit(proxy).netloc.rpartition('@')[2] or 'of the environment'}"
    fix = "Check the network, DNS, HTTPS_PROXY and NO_PROXY."
    if "certificate" in cause or "CA bundle" in cause:
        fix = f"Name the CA of the proxy or registry in SSL_CERT_FILE, or put it into {_CERTS}/{host}/ca.crt."
    return NimctlError("image-pull-failed", f"the registry {host} gave no usable answer", cause=cause, fix=fix)
