"""Bytes for people."""


def human(count: float) -> str:
    """Bytes in the binary unit that fits, such as "141.0 GiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB" if abs(count) < 1024 else f"{count / 1024:.1f} PiB"
