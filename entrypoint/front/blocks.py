"""Pieces of nginx's configuration that both kinds of locations are made of."""

from entrypoint.front import cors
from entrypoint.front.model import Front

# No answer of our own is worth keeping.
NO_STORE = ("Cache-Control", "no-store, no-cache, must-revalidate")

# A code of our own for a server that is not ready, as health tells it; clients see 503.
UNREADY = 590


def indented(text: str, by: int) -> str:
    """`text` with every line but the first moved by `by` spaces."""
    return text.replace("\n", "\n" + " " * by)


def headers_of(front: Front, *more: tuple[str, str]) -> str:
    """`add_header` lines; nginx inherits none into a block that has one of its own."""
    headers = [("X-Request-Id", "$rid"), *cors.headers(front.cors), *more]
    return "\n".join(f'add_header {name} "{value}" always;' for name, value in headers)


def block(where: str, *lines: str) -> str:
    """A location that only nginx itself can be sent to."""
    return "\n".join([f"location {where} {{", "    internal;", *(indented("    " + line, 4) for line in lines), "}"])
