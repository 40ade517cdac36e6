"""Finishing a bundle: the sums, the signature and, last of all, the document; nothing of an unfinished one is left."""

import base64
import shutil
from collections.abc import Callable

from nimctl.bundle import model
from nimctl.bundle.durable import write_whole
from nimctl.bundle.items import sha256
from nimctl.bundle.journal import Journal
from nimctl.bundle.model import Bundle


def seal(bundle: Bundle, journal: Journal, sign: Callable[[bytes], bytes] | None = None) -> None:
    """Write what makes the folder of `journal` the finished `bundle`, and remove files that are not of it."""
    model.from_bytes(document := bundle.to_bytes())  # what would not be read is not written
    folder = journal.folder
    for path in journal.others(frozenset(entry.path for entry in bundle.files)):
        (folder / path).unlink(missing_ok=True)
    others = [(model.NAME, sha256(document))]
    (folder / model.SIGNATURE).unlink(missing_ok=True)
    if sign is not None:
        signature = base64.b64encode(sign(document)) + b"\n"
        write_whole(folder, model.SIGNATURE, signature)
        others.append((model.SIGNATURE, sha256(signature)))
    write_whole(folder, model.SUMS, model.sums(bundle.pieces, others))
    write_whole(folder, model.NAME, document)
    shutil.rmtree(journal.private, ignore_errors=True)
