"""TLS on the public port: what is asked for is checked before nginx starts, so that an error names its cause.

Imported only where `NIM_SSL_MODE` asks for it, because `ssl` costs milliseconds that `live` does not have to spare.
"""

import ssl
from pathlib import Path

from entrypoint.front.model import Tls
from nimctl.core.errors import NimctlError

# https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
_NOT_YET_VALID, _EXPIRED = 9, 10
_LARGEST_FILE = 2**20


class _EncryptedError(Exception):
    """OpenSSL asked for a password."""


def check(tls: Tls) -> None:
    """Read key, certificate and authorities as nginx will. Raises `config-invalid` naming the wrong variable."""
    _read(tls.key, "NIM_SSL_KEY_PATH")
    certificate = _read(tls.certificate, "NIM_SSL_CERTS_PATH")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def password() -> str:
        raise _EncryptedError

    try:
        server.load_cert_chain(tls.certificate, tls.key, password)
    except _EncryptedError:
        raise _wrong(
            "NIM_SSL_KEY_PATH", tls.key, "the key is encrypted, and nobody is there to type its password"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            cause = f"it is not the key of the certificate in {tls.certificate}"
            raise _wrong("NIM_SSL_KEY_PATH", tls.key, cause) from error
        name, path = ("NIM_SSL_CERTS_PATH", tls.certificate)
        if "-----BEGIN CERTIFICATE-----" in certificate:
            name, path = "NIM_SSL_KEY_PATH", tls.key
        raise _wrong(name, path, f"no PEM can be read there ({error.reason or 'no certificate'})") from error
    _check_dates(server, certificate, tls.certificate)
    if tls.authorities is not None:
        authorities = _read(tls.authorities, "NIM_SSL_CA_CERTS_PATH")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=authorities)
        except (ssl.SSLError, ValueError) as error:
            raise _wrong("NIM_SSL_CA_CERTS_PATH", tls.authorities, "no PEM certificate is there") from error


def _check_dates(server: ssl.SSLContext, chain: str, path: Path) -> None:
    """A handshake with ourselves that trusts the certificate as it is: what then is left to refuse are its dates.

    https://docs.python.org/3/library/ssl.html#ssl.VERIFY_X509_PARTIAL_CHAIN
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=chain)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(4):  # two flights each are what TLS 1.3 and 1.2 need
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
                    raise _wrong("NIM_SSL_CERTS_PATH", path, error.verify_message) from error
                return  # whether clients accept it otherwise is theirs to say
            except ssl.SSLError:
                return


def _read(path: Path, name: str) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise _wrong(name, path, f"it is larger than {_LARGEST_FILE} bytes")
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise _wrong(name, path, error.strerror or str(error)) from error


def _wrong(name: str, path: Path, cause: str) -> NimctlError:
    return NimctlError(
        "config-invalid",
        f"{name}={path} cannot be used",
        cause=cause,
        fix="Mount PEM files that this user may read (mode 0440, group 0): a key without password and its certificate.",
    )
