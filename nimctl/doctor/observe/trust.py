"""Whom TLS trusts here: the machine's authorities and those that the environment names, as the fetching code does."""

import importlib.util
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

# What the registry's client reads for one registry: https://docs.docker.com/engine/security/certificates/
REGISTRY_FOLDER = Path("/etc/docker/certs.d")
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # of these requests takes the first that is set


class BundleError(Exception):
    """A bundle of authorities that the environment names cannot be used; the text is a clause."""


class Trust:
    """Contexts for many connections of one environment.

    Reading all authorities takes longer than a request (50 ms), so the folder of hashed names is tried first, which
    OpenSSL reads as it needs, and all of them only where that does not suffice.
    """

    def __init__(self, environment: Mapping[str, str], registry_folder: Path = REGISTRY_FOLDER) -> None:
        self._environment = environment
        self._registry_folder = registry_folder
        self._lock = threading.Lock()
        self._quick: ssl.SSLContext | None = None
        self._whole: dict[str, ssl.SSLContext] = {}

    def quick(self) -> ssl.SSLContext | None:
        """Trusts what the folder of hashed names holds, a part of what `whole` trusts.

        None where the environment names a bundle: one that cannot be used stops every request.
        """
        if self._bundles():
            return None
        with self._lock:
            if self._quick is None:
                self._quick = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                for folder in self._folders():
                    self._quick.load_verify_locations(capath=folder)
            return self._quick

    def whole(self, registry: str | None) -> ssl.SSLContext:
        """Trusts all that counts: for a registry those of its own folder, for other hosts those that requests brings.

        Raises BundleError.
        """
        with self._lock:
            key = registry or ""
            if key not in self._whole:
                self._whole[key] = self._read_all(registry)
            return self._whole[key]

    def _read_all(self, registry: str | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for folder in self._folders():
            context.load_verify_locations(capath=folder)
        file = self._environment.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().openssl_cafile
        with suppress(OSError):  # as OpenSSL does, which goes on without it
            context.load_verify_locations(cafile=file)
        bundles = self._bundles()
        if registry is not None:
            bundles += [str(extra) for extra in sorted((self._registry_folder / registry).glob("*.crt"))]
        else:
            bundles = bundles[:1] or _of_requests()
            bundles += filter(None, [self._environment.get("AWS_CA_BUNDLE")])
        for bundle in bundles:
            _add(context, bundle)
        return context

    def _bundles(self) -> list[str]:
        return [self._environment[name] for name in _BUNDLES if self._environment.get(name)]

    def _folders(self) -> Iterator[str]:
        named = self._environment.get("SSL_CERT_DIR") or ssl.get_default_verify_paths().openssl_capath
        for folder in (named or "").split(":"):
            if folder and Path(folder).is_dir():
                yield folder


def unverified() -> ssl.SSLContext:
    """Trusts anybody: for what a host says of the time when its certificate is refused because of the time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _add(context: ssl.SSLContext, bundle: str) -> None:
    try:
        if Path(bundle).is_dir():
            context.load_verify_locations(capath=bundle)
        else:
            context.load_verify_locations(cafile=bundle)
    except OSError as error:  # ssl.SSLError is one too
        why = "no certificate is in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise BundleError(f"the CA bundle {bundle} cannot be used: {why}") from None


def _of_requests() -> list[str]:
    """The file of authorities that requests brings along (certifi's), without importing either."""
    found = importlib.util.find_spec("certifi")
    file = Path(found.origin).with_name("cacert.pem") if found and found.origin else None
    return [str(file)] if file and file.is_file() else []
