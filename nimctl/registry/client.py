"""The registry side of the OCI distribution protocol: find the endpoint, get a token.

https://distribution.github.io/distribution/spec/auth/token/ and https://github.com/opencontainers/distribution-spec.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlencode, urlsplit

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry.denial import denial
from nimctl.registry.login import TOKEN_USER, Login
from nimctl.registry.patience import send_patiently
from nimctl.registry.reference import DOCKER_HUB, Reference, is_loopback
from nimctl.registry.transport import Response

_PARAMETER = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
CLIENT = "nimctl"  # who asks, in the words of OAuth 2
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Challenge:
    """How a registry wants to be asked: with the key itself (basic), or with a token that `realm` gives for it."""

    scheme: Literal["basic", "bearer"]
    realm: str = ""
    service: str = ""
    scope: str = ""


@dataclass(frozen=True)
class Endpoint:
    """A registry that answers: its base URL, and its challenge (None: it asks nobody for a login)."""

    registry: str
    base: str
    challenge: Challenge | None


def connect(registry: str) -> Endpoint:
    """Find out how `registry` is spoken to. https, and plain http for this machine itself only.

    Raises `image-pull-failed` when it does not answer as a registry.
    """
    host = "registry-1.docker.io" if registry == DOCKER_HUB else registry
    if not is_loopback(host):
        return _endpoint(registry, f"https://{host}", send_patiently("GET", f"https://{host}/v2/", lost=False))
    try:
        answer = send_patiently("GET", f"http://{host}/v2/", lost=False)
    except NimctlError:
        answer = None
    if answer is None or answer.status == 400:  # what TLS servers answer to plain HTTP
        return _endpoint(registry, f"https://{host}", send_patiently("GET", f"https://{host}/v2/", lost=False))
    return _endpoint(registry, f"http://{host}", answer)


def _endpoint(registry: str, base: str, answer: Response) -> Endpoint:
    challenge = parse_challenge(answer.challenges)
    if answer.status == 200 or (answer.status == 401 and challenge):
        return Endpoint(registry, base, challenge if answer.status == 401 else None)
    if answer.status == 401:
        raise NimctlError(
            "image-pull-failed",
            f"{registry} asks for a login in an unknown way",
            cause=f"WWW-Authenticate is {', '.join(answer.challenges) or 'missing'}",
            fix="Check that the address is that of a container registry.",
        )
    raise denial(registry, answer, None)


def parse_challenge(lines: tuple[str, ...]) -> Challenge | None:
    """The first challenge among WWW-Authenticate lines that can be met, bearer before basic."""
    found: dict[str, Challenge] = {}
    for line in lines:
        scheme, _, rest = line.strip().partition(" ")
        values = {m[1].lower(): re.sub(r"\\(.)", r"\1", m[2] or m[3] or "") for m in _PARAMETER.finditer(rest)}
        if scheme.lower() == "bearer" and values.get("realm"):
            asked = Challenge("bearer", values["realm"], values.get("service", ""), values.get("scope", ""))
            found.setdefault("bearer", asked)
        elif scheme.lower() == "basic":
            found.setdefault("basic", Challenge("basic"))
    return found.get("bearer") or found.get("basic")


def authorization(
    endpoint: Endpoint, credentials: Login | None, *, scope: str = "", reference: Reference | None = None
) -> dict[str, str]:
    """The header that opens `endpoint` for `scope`; empty where none is needed or none can be had.

    Raises `key-refused`, `key-missing`, `terms-not-accepted`, `payment-required`, `image-pull-failed`.
    """
    return _opened(endpoint, credentials, scope, reference, offline=False)[0]


def prove(endpoint: Endpoint, credentials: Login) -> tuple[dict[str, str], Login | None]:
    """The header that opens `endpoint`, and the identity token that the registry gives in place of the key, if it does.

    https://distribution.github.io/distribution/spec/auth/token/#requesting-a-token (offline_token). Raises as
    `authorization`.
    """
    return _opened(endpoint, credentials, "", None, offline=True)


def _opened(
    endpoint: Endpoint, credentials: Login | None, scope: str, reference: Reference | None, *, offline: bool
) -> tuple[dict[str, str], Login | None]:
    challenge = endpoint.challenge
    if challenge is None:
        return {}, None
    if challenge.scheme == "basic":
        return {"Authorization": _basic(credentials)} if credentials else {}, None
    realm = _split(challenge.realm)
    if realm.scheme != "https" and not (realm.scheme == "http" and is_loopback(realm.netloc)):
        raise NimctlError(
            "image-pull-failed",
            f"{endpoint.registry} wants the key to be sent unencrypted",
            cause=f"its token service is {realm.scheme}://{realm.netloc}",
            fix="Use a registry whose token service speaks https.",
        )
    answer = _ask_for_token(challenge, credentials, scope or challenge.scope, offline=offline)
    if answer.status != 200:
        # Only a refusal says something about the image; a token service that is not found says nothing.
        about = reference if answer.status in (401, 402, 403) else None
        raise denial(endpoint.registry, answer, credentials, about, key_taken=False)
    token, identity = _tokens(endpoint.registry, answer)
    kept = Login(TOKEN_USER, identity) if identity else None
    return {"Authorization": f"Bearer {token.reveal()}"}, kept if offline else None


def _split(url: str) -> SplitResult:
    """The parts of an address; none at all of what is no address, such as one with half a bracket."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _ask_for_token(challenge: Challenge, credentials: Login | None, scope: str, *, offline: bool) -> Response:
    query = {"service": challenge.service, "scope": scope}
    query = {name: value for name, value in query.items() if value}
    if credentials and credentials.username == TOKEN_USER:
        form = {
            **query,
            "grant_type": "refresh_token",
            "client_id": CLIENT,
            "refresh_token": credentials.password.reveal(),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return send_patiently("POST", challenge.realm, headers, data=urlencode(form).encode())
    if credentials:
        query["account"] = credentials.username
    if offline:
        query |= {"offline_token": "true", "client_id": CLIENT}
    joint = "&" if urlsplit(challenge.realm).query else "?"
    headers = {"Authorization": _basic(credentials)} if credentials else {}
    return send_patiently("GET", f"{challenge.realm}{joint}{urlencode(query)}", headers)


def _basic(credentials: Login) -> str:
    return f"Basic {credentials.encoded.reveal()}"


def _tokens(registry: str, answer: Response) -> tuple[Secret, Secret | None]:
    """The token, and the identity token where there is one."""
    try:
        document = json.loads(answer.body)
        token = document.get("token") or document.get("access_token")
        identity = document.get("refresh_token")
        if isinstance(token, str) and _PRINTABLE.fullmatch(token):
            return Secret(token), Secret(identity) if isinstance(identity, str) and identity else None
    except (ValueError, AttributeError):
        pass
    raise NimctlError(
        "image-pull-failed",
        f"the token service of {registry} gave no token",
        cause="its answer is not a JSON object with a token",
        fix="Try again later; if a proxy stands between, check what it answers.",
    )
