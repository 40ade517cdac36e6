"""Docker's configuration file, of which only what matters here is kept."""

from pathlib import Path

from nimctl.core.facts import DaemonConfig, DockerFacts


def look_at_daemon_config(docker: DockerFacts, root: Path = Path("/")) -> DaemonConfig | None:
    """The configuration file of the daemon that answers, where it is a daemon of this host."""
    return None
