"""Keyless signatures: a certificate for an identity, and the proof that a log has it. The only importer of sigstore.

Everything is checked from files: the trusted root is one that the user names, or the one that came with the library
(Sigstore's own, as of its release). Nothing is fetched, so a root that was renewed since is named as a file.
"""

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sigstore.errors import Error, VerificationError
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier, policy

from nimctl.core.errors import NimctlError
from nimctl.trust.claims import PAYLOAD_TYPE
from nimctl.trust.judging import RefusedError
from nimctl.trust.keys import certificate_names

_PUBLIC_GOOD = "https://tuf-repo-cdn.sigstore.dev"  # of whose trusted root the library carries a copy
_LARGEST_ROOT = 2**20  # bytes


class _Whom:
    """The policy for sigstore's verifier: whom the certificate names (`*` stands for any part), and who vouches."""

    def __init__(self, identity: str, issuer: str) -> None:
        self._identity = re.compile(".*".join(map(re.escape, identity.split("*"))))
        self._issuer = issuer
        self.named: str | None = None  # who it was, once the certificate is known to be genuine
        self.refused: str | None = None

    def verify(self, cert: Any) -> None:
        names = certificate_names(cert)
        self.named = next((name for name in names if self._identity.fullmatch(name)), None)
        if self.named is None:
            self.refused = f"it is signed by {', '.join(names) or 'nobody by name'}"
            raise VerificationError(self.refused)
        try:
            # the second extension replaced the first: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
            policy.AnyOf([policy.OIDCIssuerV2(self._issuer), policy.OIDCIssuer(self._issuer)]).verify(cert)
        except VerificationError:
            self.refused = f"{self.named} signed it, and another than {self._issuer} vouches for that"
            raise


def open_bundle(bundle: bytes, *, identity: str, issuer: str, trusted_root: Path | None) -> tuple[bytes, str]:
    """The payload that a bundle proves, and whose it is. Raises RefusedError, and `trust-invalid` for the root."""
    verifier = _verifier(trusted_root)
    try:
        parsed = Bundle.from_json(bundle)
    except (Error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RefusedError("malformed", f"a bundle cannot be read: {_words(error)}") from None
    whom = _Whom(identity, issuer)
    try:
        kind, payload = verifier.verify_dsse(parsed, whom)
    except (Error, ValueError, TypeError, KeyError, AttributeError) as error:
        if whom.refused:
            raise RefusedError("wrong-identity", whom.refused) from None
        if _expired(parsed):
            raise RefusedError("expired-certificate", "its certificate had expired when it was signed") from None
        raise RefusedError("wrong-key", f"the trusted root does not vouch for it: {_words(error)}") from None
    if kind != PAYLOAD_TYPE:
        raise RefusedError("malformed", f"its payload is {kind!r}, not {PAYLOAD_TYPE}")
    return payload, f"{whom.named} ({issuer})"


def _expired(bundle: Bundle) -> bool:
    """Whether the time that the log states lies outside of the certificate's."""
    when = bundle.log_entry._inner.integrated_time
    certificate = bundle.signing_certificate
    first, last = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return bool(when) and not first <= float(when or 0) <= last


@cache
def _verifier(trusted_root: Path | None) -> Verifier:
    if trusted_root is None:
        carried = resources.files("sigstore._store").joinpath(quote(_PUBLIC_GOOD, safe=""), "trusted_root.json")
        with resources.as_file(carried) as path:
            return Verifier(trusted_root=TrustedRoot.from_file(str(path)))
    try:
        if trusted_root.stat().st_size > _LARGEST_ROOT:
            raise ValueError("it is too large")
        return Verifier(trusted_root=TrustedRoot.from_file(str(trusted_root)))
    except (OSError, Error, ValueError, TypeError, KeyError) as error:
        raise NimctlError(
            "trust-invalid",
            f"the trusted root {trusted_root} cannot be used",
            cause=_words(error),
            fix="Name the trusted_root.json of the Sigstore instance that signed (`cosign trusted-root create`).",
        ) from None


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return str(text)[:160] or type(error).__name__
