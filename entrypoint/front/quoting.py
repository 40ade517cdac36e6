"""Text from outside in nginx's configuration: quoted, or refused where nginx has no way to quote it."""

from nimctl.core.errors import NimctlError


def quoted(text: str, origin: str) -> str:
    """`text` as one parameter of nginx. Raises `config-invalid`, naming `origin`, for what cannot be one.

    In double quotes only `\\` and `"` are special, but a `$` begins a variable wherever variables are allowed, and
    nothing escapes it: https://nginx.org/en/docs/dev/development_guide.html#http_variables
    """
    # NGX_CONF_BUFFER is 4096 bytes, which bound the length of one parameter.
    if any(ord(c) < 0x20 or ord(c) == 0x7F or c == "$" for c in text) or len(text.encode()) > 3000:
        raise NimctlError(
            "config-invalid",
            f"{origin} cannot be used",
            cause="it holds a control character or a $, or is longer than 3000 bytes",
            fix=f"Correct or unset {origin}.",
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
