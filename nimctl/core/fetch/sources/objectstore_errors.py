"""What a failure of the object store library means. Pure: it gets the class name and the text, which hold it all.

The library tells apart a few statuses by class and the rest in words: the status line of the answer, the store's own
`<Code>` (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), or, where there was no answer, the chain
of causes as Rust prints it. Its texts hold addresses and answers, so none is shown whole.
"""

import re
from dataclasses import dataclass
from typing import Literal

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.http import errors as http_errors
from nimctl.core.fetch.protocol import Interrupted, RangeIgnored

Kind = Literal["by its text", "absent", "refused", "changed", "unsafe name", "settings", "ours"]
# Every class of obstore.exceptions: https://developmentseed.org/obstore/latest/api/exceptions/
KINDS: dict[str, Kind] = {
    "BaseError": "by its text",
    "GenericError": "by its text",
    "FileNotFoundError": "absent",
    "NotFoundError": "absent",
    "PermissionDeniedError": "refused",
    "UnauthenticatedError": "refused",
    "PreconditionError": "changed",
    "NotModifiedError": "changed",
    "InvalidPathError": "unsafe name",
    "UnknownConfigurationKeyError": "settings",
    "ValueError": "settings",
    "JoinError": "ours",
    "NotSupportedError": "ours",
    "AlreadyExistsError": "ours",
}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>")
_PATH = re.compile(r'path: "(.{1,300}?)",')
_METADATA = re.compile(r"https?://(169\.254\.\d+\.\d+|metadata\.google\.internal|metadata)[:/]|/latest/api/token")
_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
            "AccessDenied", "InvalidSecurity", "AllAccessDisabled", "AccountProblem")  # fmt: skip
_SKEWED = ("RequestTimeTooSkewed", "RequestExpired")
_EXPIRED = ("Expired", "NotValidYet")
_UNTRUSTED = (
    "UnknownIssuer",
    "InvalidCertificate",
    "BadSignature",
    "NotValidForName",
    "CaUsedAsEndEntity",
    "SelfSigned",
)
_CROWDED = ("429", "503")


@dataclass(frozen=True)
class Asked:
    """Whom we asked: the `address` of bucket and folder, and whether with a key; `variables` name where keys go."""

    address: str
    with_key: bool
    variables: str


def translated(name: str, text: str, asked: Asked) -> NimctlError | Interrupted | RangeIgnored:  # noqa: PLR0911 (a table)
    """What to raise for an exception of the class `name` with `text`."""
    kind = KINDS.get(name, "by its text")
    if kind == "refused":
        return _refused(text, asked)
    if kind == "absent":
        return absent(asked, _code(text) or "the answer was 404")
    if kind == "changed":
        return changed(asked)
    if kind == "unsafe name":
        found = _PATH.search(text)
        return NimctlError(
            "weights-unsafe-name",
            f"{asked.address} names a file that would not stay in its folder",
            cause=f"the name is {found[1]!r:.200}" if found else "the name has empty parts or ..",
            fix="Rename or remove that object, or name a folder without it.",
        )
    if kind == "settings":
        return settings_wrong(asked, text.split("\n", maxsplit=1)[0][:200])
    if kind == "ours":
        return Interrupted(f"{asked.address}: the library gave up ({name})")
    return _by_text(text, asked)


def _by_text(text: str, asked: Asked) -> NimctlError | Interrupted | RangeIgnored:  # noqa: PLR0911 (a table)
    if _METADATA.search(text):
        return _no_key(asked, "no key is given, the bucket is not public, and this machine has no role to borrow one")
    if "NotPartial" in text or "non-partial" in text:
        return RangeIgnored()
    status = found[1] if (found := _STATUS.search(text)) else ""
    code = _code(text)
    if code in _SKEWED:
        return http_errors.clock_error(asked.address, f"it answered {code}")
    if "incorrectly configured region" in text or code in ("AuthorizationHeaderMalformed", "PermanentRedirect"):
        region = found[1] if (found := _REGION.search(text)) else None
        return NimctlError(
            "config-invalid",
            f"{asked.address} is in another region",
            cause=f"the bucket is in {region}" if region else "the store redirects to another region",
            fix=f"Set AWS_REGION={region or 'to the region of the bucket'}.",
        )
    if status in ("401", "403") or code in _REFUSED:
        return _refused(text, asked)
    if status == "404":
        return absent(asked, code or "the answer was 404")
    if status == "412":
        return changed(asked)
    return _of_status(status, code, asked) if status else _no_answer(text, asked)


def _of_status(status: str, code: str | None, asked: Asked) -> NimctlError | Interrupted:
    told = f"{asked.address} answered {status}" + (f" ({code})" if code else "")
    if status[0] == "5" or status in ("408", "416", "425", "429") or code in ("RequestTimeout", "SlowDown"):
        return Interrupted(told, crowded=status in _CROWDED)
    return NimctlError(
        "weights-source-failed",
        f"{asked.address} does not hand out the weights",
        cause=told,
        fix="Check AWS_ENDPOINT_URL or GOOGLE_BASE_URL, and whether a proxy or firewall answers in its place.",
    )


def _no_answer(text: str, asked: Asked) -> NimctlError | Interrupted:  # noqa: PLR0911 (a table)
    """The failures below HTTP, by the names that rustls, hyper and the system give them."""
    if "InvalidCertificate" in text and any(word in text for word in _EXPIRED):
        return http_errors.clock_error(asked.address, "its certificate is not valid at this time")
    if word := next((word for word in _UNTRUSTED if word in text), None):
        return NimctlError(
            "tls-untrusted",
            f"the certificate of {asked.address} is not trusted here",
            cause=f"TLS says {word}",
            fix="Behind a proxy that inspects TLS or a private CA: set AWS_CA_BUNDLE or SSL_CERT_FILE (in a container: "
            "mount it) to a file with that CA.",
        )
    if "ProxyAuthRequired" in text or "tunnel" in text.lower():
        return NimctlError(
            "proxy-refused",
            f"the proxy does not let us reach {asked.address}",
            cause="it asks for a user and a password" if "ProxyAuth" in text else "it refuses the tunnel",
            fix="Check HTTPS_PROXY and NO_PROXY, and that the proxy allows this host.",
        )
    if "builder error" in text or "URL scheme is not allowed" in text:
        return settings_wrong(asked, "the address of the endpoint cannot be used")
    if "dns error" in text:
        return Interrupted(f"{asked.address}: its name cannot be looked up", id="weights-source-unreachable")
    if found := re.search(r'message: "([\w ().-]{1,80})"', text):
        connecting = "kind: Connect" in text
        reason = f"{asked.address}: {found[1].lower()}"
        return Interrupted(reason, id="weights-source-unreachable") if connecting else Interrupted(reason)
    if "kind: Connect" in text:
        return Interrupted(f"{asked.address}: no connection", id="weights-source-unreachable")
    if "TimedOut" in text or "Timeout" in text:
        return Interrupted(f"{asked.address}: no answer in time")
    return Interrupted(f"{asked.address}: the connection broke")


def _refused(text: str, asked: Asked) -> NimctlError:
    code = _code(text) or "the answer was " + (found[1] if (found := _STATUS.search(text)) else "a refusal")
    if code in _SKEWED:
        return http_errors.clock_error(asked.address, f"it answered {code}")
    if not asked.with_key:
        return _no_key(asked, f"no key is given, and the bucket is not public ({code})")
    return NimctlError(
        "key-refused",
        f"{asked.address} refuses the key",
        cause=code,
        fix=f"Check {asked.variables}, and that this key may list and read the bucket.",
    )


def _no_key(asked: Asked, cause: str) -> NimctlError:
    return NimctlError(
        "key-missing", f"{asked.address} needs a key", cause=cause, fix=f"Set {asked.variables}, and the region."
    )


def absent(asked: Asked, cause: str) -> NimctlError:
    """The error for a bucket, folder or file that is not there."""
    return NimctlError(
        "weights-not-found",
        f"{asked.address} does not exist",
        cause=cause,
        fix="Check bucket, folder, region and endpoint; the address names the folder that holds config.json.",
    )


def changed(asked: Asked, path: str = "a file") -> NimctlError:
    """The error for content that is replaced while it is fetched."""
    return NimctlError(
        "weights-source-failed",
        f"{path} of {asked.address} changed while it was fetched",
        cause="it is no longer what was listed at the start",
        fix="Wait until the upload is finished, then run it again: the folder is listed afresh.",
    )


def settings_wrong(asked: Asked, cause: str) -> NimctlError:
    """The error for AWS_* or GOOGLE_* variables that the library cannot use."""
    return NimctlError(
        "config-invalid",
        f"the settings for {asked.address} cannot be used",
        cause=cause,
        fix="Check the AWS_* or GOOGLE_* variables; an endpoint is an address such as https://host:port.",
    )


def _code(text: str) -> str | None:
    return found[1] if (found := _CODE.search(text)) else None
