"""What tests of interrupted downloads share: a server, processes that fetch from it, and a quick disk."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.fault_hub import SEND_BUFFER, FaultHub
from tests.lib.fetcher import Fetchers


@pytest.fixture
def hub() -> Iterator[FaultHub]:
    """A server of which at most UNREAD bytes of a connection are sent and never read."""
    with FaultHub(send_buffer=SEND_BUFFER) as hub:
        yield hub


@pytest.fixture(scope="module")
def fetchers() -> Iterator[Fetchers]:
    with Fetchers() as fetchers:
        yield fetchers


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where possible: a kill leaves the same files there, and hundreds of fsyncs cost nothing.

    NIMCTL_SWEEP_FOLDER names another place, to see the same on a disk.
    """
    memory = Path(os.environ.get("NIMCTL_SWEEP_FOLDER", "/dev/shm"))
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="nimctl-test-", ignore_cleanup_errors=True) as name:
        yield Path(name)
