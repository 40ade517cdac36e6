"""A session of requests that follows our policy: no keys from ~/.netrc, no cookies, the machine's own CAs."""

import http.cookiejar
import re
import ssl
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from nimctl import __version__
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

# a token68 and a little more: https://www.rfc-editor.org/rfc/rfc9110#section-11.2
_KEY = re.compile(r"[A-Za-z0-9._~+/=:|-]+")


def new_session() -> requests.Session:
    """A session for one thread; redirects and keys are its user's business."""
    session = requests.Session()
    session.auth = _as_it_is
    session.headers.update({"User-Agent": f"nimctl/{__version__}"})
    # Cookies know no ports, and would take a login to another server of the same host.
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    session.mount("https://", _SystemTrust(max_retries=0))
    session.mount("http://", HTTPAdapter(max_retries=0))
    return session


class _SystemTrust(HTTPAdapter):
    """Trusts the CAs of this machine (OpenSSL's default places, SSL_CERT_FILE) beside those that requests brings."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Give each pool a context with the machine's own CAs."""
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **kwargs)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Do so behind a proxy too."""
        return super().proxy_manager_for(*args, ssl_context=ssl.create_default_context(), **kwargs)


def bearer(key: Secret | None) -> dict[str, str]:
    """The header that sends `key`; none without one. Raises `key-refused` for what no header can hold."""
    return {"Authorization": f"Bearer {_sendable(key)}"} if key else {}


def basic(user: str, key: Secret) -> dict[str, str]:
    """The header that sends `user` and `key`. Raises `key-refused` for what no header can hold."""
    return {"Authorization": requests.auth._basic_auth_str(user, _sendable(key))}


def _sendable(key: Secret) -> str:
    """The key's text. requests would refuse a broken one with an error that shows it."""
    text = key.reveal()
    if not _KEY.fullmatch(text):
        raise NimctlError(
            "key-refused",
            "the key cannot be sent",
            cause="it holds characters that no key has, such as a space, a line break or a quotation mark",
            fix="Set the variable, or fill the file that it names, with the key alone.",
        )
    return text


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The `auth` that adds nothing, which keeps requests from looking into ~/.netrc."""
    return request
