"""What the front is asked to be: where it listens, whom it lets in, how it speaks to browsers."""

from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.front.cors import Cors
from entrypoint.front.keys import Keys
from entrypoint.front.routes import Route, table


@dataclass(frozen=True)
class Tls:
    """PEM files; with `authorities`, clients must show a certificate of one of them."""

    key: Path
    certificate: Path
    authorities: Path | None = None


@dataclass(frozen=True)
class Front:
    """Where the front listens and whom it lets in; `token` is the header value that lets our own requests through.

    `way_in` is the socket for those while the public port speaks TLS, for which we have no client certificate. Without
    `api` no request reaches the engine: another node answers them.
    """

    host: str
    port: int
    token: str = field(repr=False)
    health_port: int | None = None
    tls: Tls | None = None
    keys: Keys | None = None
    cors: Cors = field(default_factory=Cors)
    max_body_mib: int = 64
    sagemaker: bool = False
    scale_out: bool = False
    api: bool = True
    way_in: Path | None = None

    @property
    def routes(self) -> tuple[Route, ...]:
        """What is reachable on the public port."""
        return table(sagemaker=self.sagemaker, scale_out=self.scale_out)

    @property
    def client_host(self) -> str:
        """The address at which we reach ourselves, as `unixhttp` takes it."""
        if self.way_in is not None:
            return f"unix:{self.way_in}"
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (a key, not a bind)
