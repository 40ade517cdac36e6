"""Names that outlive a power cut."""

import os
from pathlib import Path


def write_whole(folder: Path, name: str, content: bytes) -> None:
    """Write a small file so that it is there whole or not at all."""
    fresh = folder / f".{name}.fresh"
    fresh.unlink(missing_ok=True)
    with fresh.open("xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(folder / name)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the names in the folder on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:  # FAT and some network mounts know no sync of folders
        pass
    finally:
        os.close(handle)
