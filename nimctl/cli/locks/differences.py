"""Differences from a lock, said: to people one below the other, to programs as a list, and as the error they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from nimctl.cli.locks.file import Read
from nimctl.core.errors import NimctlError
from nimctl.lock.comparing import Difference
from nimctl.render import Output


def refuse(found: Read, rows: Sequence[Difference], out: Output) -> NoReturn:
    """End with `lock-differs` and every difference: what, both sides and the way out."""
    tell(rows, "here", out)
    first = rows[0]
    error = NimctlError(
        "lock-differs",
        f"{found.path} and this host differ in {len(rows)} thing{'s' if len(rows) != 1 else ''}",
        cause=f"{first.what} is locked as {first.locked}, and here it is {first.here}",
        fix=first.fix,
    )
    out.error(error, {"file": str(found.path), "lock": found.digest, "differences": [row.to_json() for row in rows]})
    raise SystemExit(error.exit_code)


def tell(rows: Sequence[Difference], here: str, out: Output) -> None:
    """The differences for people: digests do not fit beside each other."""
    for row in rows:
        out.text(row.what, style="bold")
        out.text(f"  {'locked':<8} {row.locked}")
        out.text(f"  {here:<8} {row.here}")
        out.text(f"  {'way out':<8} {row.fix}", style="dim")
