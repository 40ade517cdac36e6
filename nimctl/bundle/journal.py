"""What a bundle that is being packed has so far: written line by line, so that a cut loses no finished file.

The folder may come from elsewhere: nothing in it leads out of it, neither a link nor a name in the journal.
"""

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nimctl.bundle.model import LARGEST, NAME, PARTIAL, Bundle, Entry, from_bytes, require_entry
from nimctl.bundle.problems import invalid
from nimctl.core.errors import NimctlError
from nimctl.core.plain import from_plain, to_plain

_JOURNAL = "journal"
# What a filesystem itself puts into its root.
_NOT_OURS = {"lost+found", "System Volume Information", ".snapshot"}


class Journal:
    """Finished files of the bundle in `folder` with the token of what each was made from, and notes by name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.private = folder, folder / PARTIAL
        self._entries: dict[str, tuple[str, Entry]] = {}
        self._notes: dict[str, Any] = {}
        self._old: set[str] = set()
        self.before: Bundle | None = None  # where the folder holds a finished bundle
        self._read()

    def finished(self, path: str, token: str) -> Entry | None:
        """The entry of `path` where it was finished from the same origin and still lies there with its size."""
        known, entry = self._entries.get(path, ("", None))
        if entry is None or known != token:
            return None
        for piece in entry.pieces:
            try:
                if (self.folder / piece.path).lstat().st_size != piece.size:
                    return None
            except OSError:
                return None
        return entry

    def is_of_before(self, path: str) -> bool:
        """Whether its entry comes from a bundle that was finished before: much may have happened to it since."""
        return path in self._old

    def finish(self, token: str, entry: Entry) -> None:
        """Note that a file has its name now. Its bytes are on the disk."""
        self._entries[entry.path] = token, entry
        self._old.discard(entry.path)
        self._append({"token": token, "entry": to_plain(entry)})

    def note(self, name: str, value: Mapping[str, Any] | None = None) -> Any:
        """What was noted under `name`; with a value, note that."""
        if value is not None:
            self._notes[name] = value
            self._append({"note": name, "value": value})
        return self._notes.get(name)

    def others(self, wanted: frozenset[str]) -> list[str]:
        """Names of the files in the folder that belong to entries which are not among `wanted`."""
        kept = {piece.path for path, (_, entry) in self._entries.items() if path in wanted for piece in entry.pieces}
        return [p.path for _, entry in self._entries.values() for p in entry.pieces if p.path not in kept]

    def _append(self, line: Mapping[str, Any]) -> None:
        with (self.private / _JOURNAL).open("ab") as out:
            out.write(json.dumps(line).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())

    def _read(self) -> None:
        self.before = _finished(self.folder)
        for entry in self.before.files if self.before else ():
            cut = f" {entry.parts[0].size}" if entry.parts else ""
            self._entries[entry.path] = f"sha256:{entry.sha256}{cut}", entry
        self._old = set(self._entries)
        with contextlib.suppress(OSError):
            for line in (self.private / _JOURNAL).read_bytes().splitlines():
                # the last line of a cut may be half
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    document = json.loads(line)
                    if "note" in document:
                        self._notes[document["note"]] = {**document["value"]}
                    else:
                        require_entry(entry := from_plain(Entry, document["entry"]))
                        self._entries[entry.path] = document["token"], entry
                        self._old.discard(entry.path)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    """The journal of `folder`, which is made where it is missing, held by this process alone.

    Raises `usage` for a folder that holds other things, `bundle-invalid` for one with links in it, `name-in-use` while
    another process packs into it, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in folder.iterdir()} - _NOT_OURS
    _require_plain(folder)
    if names and PARTIAL not in names and _finished(folder) is None:
        raise NimctlError(
            "usage",
            f"no bundle can be made in {folder}",
            cause=f"it holds {', '.join(sorted(names)[:3])}, which is not from here",
            fix="Name a folder that is empty or not there.",
        )
    private = folder / PARTIAL
    private.mkdir(exist_ok=True)
    handle = os.open(private / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NimctlError(
                "name-in-use",
                f"{folder} is being filled by another process",
                cause="its lock is held",
                fix="Wait until that one has ended, or name another folder.",
            ) from error
        except OSError:  # a mount that knows no locks, as FAT over some drivers
            pass
        yield Journal(folder)
    finally:
        os.close(handle)


def _require_plain(folder: Path) -> None:
    """Raises `bundle-invalid` where there is more than files and folders: what is written would go elsewhere."""
    for base, folders, names in os.walk(folder):
        if Path(base) == folder:
            folders[:] = [name for name in folders if name not in _NOT_OURS]
        for name in (*folders, *names):
            path = Path(base, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise invalid(f"{path.relative_to(folder)} is a link or a device, which no bundle holds", str(folder))


def _finished(folder: Path) -> Bundle | None:
    """What the folder holds, where it is a bundle that was finished."""
    try:
        with (folder / NAME).open("rb") as content:
            return from_bytes(content.read(LARGEST))
    except (OSError, NimctlError):
        return None
