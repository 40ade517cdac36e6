"""A bucket as the library wants it: keys, region, endpoint, trusted CAs and time-outs, for reading and for writing."""

import contextlib
import datetime
import ssl
from pathlib import Path
from typing import Any

import obstore
import obstore.store

from nimctl import __version__
from nimctl.core.fetch.sources import objectstore_errors
from nimctl.core.fetch.sources import objectstore_settings as settings
from nimctl.core.fetch.sources.objectstore_errors import Asked

Store = obstore.store.S3Store | obstore.store.GCSStore
_CONNECT = datetime.timedelta(seconds=10)
_SILENCE = datetime.timedelta(seconds=30)
# Of a request as a whole; the library's own 30 seconds would cut a large range off on a slow line.
_WHOLE = datetime.timedelta(hours=12)


def store(
    scheme: settings.Scheme, bucket: str, chosen: settings.Settings, asked: Asked, *, signed: bool, retries: int = 0
) -> Store:
    """The bucket; its requests are `signed`, and repeated so often by the library. Raises `config-invalid`."""
    options = dict(chosen.options)
    if not signed:
        options["skip_signature"] = "true"
    # The library's annotations know its options one by one, not as the mapping that they are here.
    told: Any = {
        "config": options,
        "client_options": _client_options(chosen),
        "retry_config": {"max_retries": retries, "retry_timeout": _SILENCE * (1 + retries)},
    }
    kind = obstore.store.S3Store if scheme == "s3" else obstore.store.GCSStore
    try:
        return kind(bucket, **told)
    except (obstore.exceptions.BaseError, ValueError, OSError) as error:
        raise objectstore_errors.settings_wrong(asked, f"{type(error).__name__} while they were read") from error


def _client_options(chosen: settings.Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "connect_timeout": _CONNECT,
        "read_timeout": _SILENCE,
        "timeout": _WHOLE,
        "user_agent": f"nimctl/{__version__}",
        "allow_http": (chosen.endpoint or "").startswith("http://"),
    }
    # OpenSSL's own reading of SSL_CERT_FILE, which the library does not know in every build.
    paths = ssl.get_default_verify_paths()
    named = chosen.ca_file or (paths.cafile if paths.cafile != paths.openssl_cafile else None)
    if named:
        with contextlib.suppress(OSError):
            options["root_certificate"] = Path(named).read_bytes()
    return options
