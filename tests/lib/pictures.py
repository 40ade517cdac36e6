"""Heads of pictures that claim a size, made by hand: no decoder needs to agree to it."""

import base64
import struct
import zlib


def png_head(width: int, height: int) -> bytes:
    """A PNG up to the end of its first chunk."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def gif_head(width: int, height: int, frame: tuple[int, int] | None = None) -> bytes:
    """A GIF with one frame, which may be larger than the screen that it is on."""
    wide, high = frame or (width, height)
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    comment = b"\x21\xfe\x05hello\x00"
    return head + comment + b"\x2c" + struct.pack("<HHHHB", 0, 0, wide, high, 0) + b"\x02\x02\x4c\x01\x00;"


def jpeg_head(width: int, height: int, before: int = 0) -> bytes:
    """A JPEG up to its frame, after `before` bytes of comment segments."""
    comments = b""
    while before > 0:
        size = min(before, 65_000)
        comments += b"\xff\xfe" + struct.pack(">H", size + 2) + bytes(size)
        before -= size
    return b"\xff\xd8" + comments + b"\xff\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"


PNG_HEAD = png_head(1, 1)


def data_url(data: bytes, kind: str = "image/png") -> str:
    """The bytes as a data: URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
