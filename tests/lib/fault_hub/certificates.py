"""A private CA and a server certificate for loopback names, made with the openssl command."""

import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_CONFIG = """
[ca]
default_ca = it
[it]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: what a client must trust, and what the server shows."""

    ca_file: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))


def make_certificates(
    folder: Path, hosts: tuple[str, ...], *, valid: tuple[datetime, datetime] | None = None
) -> Certificates:
    """For `hosts` (names or addresses); `valid` is the server certificate's time, by default yesterday to tomorrow."""
    now = datetime.now(UTC)
    start, end = valid or (now - timedelta(days=1), now + timedelta(days=1))
    names = ",".join(f"IP:{host}" if host.replace(".", "").isdigit() else f"DNS:{host}" for host in hosts)
    config = folder / "openssl.cnf"
    config.write_text(_CONFIG.format(folder=folder, names=names), encoding="ascii")
    (folder / "index.txt").touch()
    (folder / "index.txt.attr").write_text("unique_subject = no\n", encoding="ascii")
    root, key, request, leaf = (folder / name for name in ("ca.pem", "key.pem", "request.pem", "server.pem"))
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    root_key = folder / "ca-key.pem"
    _openssl(
        *("req", "-x509", *new_key, "-keyout", root_key, "-out", root, "-days", "2", "-subj", "/CN=fault hub CA"),
        *("-config", _empty(folder), "-extensions", "root"),
    )
    _openssl(
        *("req", "-new", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=fault hub"),
        *("-config", _empty(folder)),
    )
    _openssl(
        *("ca", "-batch", "-notext", "-config", config, "-cert", root, "-keyfile", root_key, "-in", request),
        *("-out", leaf, "-extensions", "server", "-startdate", _stamp(start), "-enddate", _stamp(end)),
    )
    return Certificates(root, leaf, key)


def _empty(folder: Path) -> Path:
    """`req` insists on a section of its own and reads the root's extensions from the same file."""
    path = folder / "request.cnf"
    text = _CONFIG.format(folder=folder, names="DNS:unused")
    path.write_text("[req]\ndistinguished_name = name\n[name]\n" + text, encoding="ascii")
    return path


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")
