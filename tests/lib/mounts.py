"""Small filesystems for tests of full, read-only and dead disks. Needs root; skips where mounting fails."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, *options: str, pass_fds: tuple[int, ...] = ()) -> Iterator[Path]:
    """`mount OPTIONS place`, and its end."""
    place.mkdir(exist_ok=True)
    command = ["mount", *options, str(place)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, pass_fds=pass_fds, timeout=30)
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)


def tmpfs(place: Path, options: str):
    """A filesystem in memory, for example with `size=64k`, `nr_inodes=2` or `ro`."""
    return mounted(place, "-t", "tmpfs", "-o", options, "nimctl-test")


@contextmanager
def dead(place: Path) -> Iterator[Path]:
    """A FUSE mount whose server never answers, like a network mount whose server is gone."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"FUSE is not possible here: {error}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    try:
        with mounted(place, "-i", "-t", "fuse", "-o", options, "nimctl-test", pass_fds=(device,)) as folder:
            try:
                yield folder
            finally:
                os.close(device)  # ends the connection, which frees whoever waits in the kernel
                device = -1
    finally:
        if device >= 0:
            os.close(device)
