"""Docker: what its daemon is like, its images, and servers in containers. `client` alone imports docker-py."""

from nimctl.core.pull_progress import PullProgress
from nimctl.launch.docker.daemon import describe_daemon
from nimctl.launch.docker.engine import Engine, ImageInfo
from nimctl.launch.docker.images import look_at_image
from nimctl.launch.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime", "Engine", "ImageInfo", "PullProgress", "describe_daemon", "look_at_image"]
