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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from nimctl import __version__
from nimctl.core.errors import NimctlError
from nimctl.registry.reference import is_loopback

TIMEOUT = 15.0  # seconds for every single step: connect, each read
MAX_REDIRECTS = 5
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


def send(method: str, url: str, headers: Mapping[str, str] | None = None, *, data: bytes | None = None) -> Response:
    """One request, redirects of GET and HEAD followed: at most 5, never from https to http.

    `Authorization` goes to the host it was given for and to no other. Honours HTTPS_PROXY, HTTP_PROXY, NO_PROXY (never
    for this machine itself) and SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE. Raises `image-pull-failed` when no
    answer comes.
    """
    origin, carried = urlsplit(url), dict(headers or {})
    for _ in range(MAX_REDIRECTS + 1):
        response = _exchange(method, url, carried, data)
        location = response.headers.get("location")
        if method == "POST" or response.status not in (301, 302, 303, 307, 308) or not location:
            return response
        url = urljoin(url, location)
        target = urlsplit(url)
        if target.scheme not in ("http", "https") or (origin.scheme == "https" and target.scheme == "http"):
            raise _failure(origin.netloc, "it redirected from https to an address that is not https")
        if (target.scheme, target.netloc) != (origin.scheme, origin.netloc):
            carried = {name: value for name, value in carried.items() if name.lower() != "authorization"}
    raise _failure(origin.netloc, f"it redirected more than {MAX_REDIRECTS} times")


def _exchange(method: str, url: str, headers: Mapping[str, str], data: bytes | None) -> Response:
    host = urlsplit(url).netloc
    try:
        request = urllib.request.Request(url, data, {"User-Agent": f"nimctl/{__version__}", **headers}, method=method)  # noqa: S310 (send checks the scheme)
        with contextlib.closing(_opener(url).open(request, timeout=TIMEOUT)) as answer:
            body = answer.read(MAX_BODY + 1)
            lines = {name.lower(): value for name, value in answer.headers.items()}
            challenges = tuple(answer.headers.get_all("WWW-Authenticate") or ())
            status = int(answer.status)
    except urllib.error.URLError as error:
        raise _failure(host, _words(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _failure(host, _words(error)) from None
    except ValueError:
        # Its text would quote the header, and so the key.
        raise _failure(
            host, "the request could not be written: an address or a header holds forbidden characters"
        ) from None
    if len(body) > MAX_BODY:
        raise _failure(host, f"its answer is larger than {MAX_BODY} bytes")
    return Response(status, lines, body, challenges)


def _opener(url: str) -> urllib.request.OpenerDirector:
    host = urlsplit(url).netloc
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler({} if is_loopback(host) else None))
    opener.add_handler(urllib.request.HTTPHandler())
    if url.startswith("https:"):
        bundles = tuple(os.environ[name] for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name))
        opener.add_handler(urllib.request.HTTPSHandler(context=_tls(host, bundles)))
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
