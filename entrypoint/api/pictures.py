"""What the first bytes of a picture say: its format and its size in pixels, before anybody decodes it.

A file of 10 kB can claim 10 GB of pixels; the claim is in the header of each format that is allowed here.
"""

import base64
import binascii
from typing import Literal, NamedTuple

Format = Literal["png", "gif", "jpeg"]

# JPEG files hold thumbnails and colour profiles before their size.
HEADER = 256 * 2**10
# Frames of a JPEG, all but tables and differential marks: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})


class Picture(NamedTuple):
    """The format, and the size in pixels where the header says one."""

    format: Format
    width: int | None
    height: int | None

    @property
    def pixels(self) -> int:
        """Width times height, 0 where the header does not say."""
        return (self.width or 0) * (self.height or 0)


def look(head: bytes) -> Picture | None:
    """What the first bytes are a picture of; None for all but PNG, GIF and JPEG."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        if head[12:16] == b"IHDR" and len(head) >= 24:
            return Picture("png", int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
        return Picture("png", None, None)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(head)
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(head)
    return None


def _gif(head: bytes) -> Picture:
    """The screen, or the first frame where that is larger: a decoder makes room for both."""
    if len(head) < 13:
        return Picture("gif", None, None)
    width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    place = 13 + (3 << ((head[10] & 7) + 1) if head[10] & 0x80 else 0)
    while place + 10 <= len(head):
        if head[place] == 0x21:  # an extension: blocks up to an empty one
            place += 2
            while place < len(head) and head[place]:
                place += head[place] + 1
            place += 1
            continue
        if head[place] == 0x2C:
            left, top, wide, high = (int.from_bytes(head[place + i : place + i + 2], "little") for i in (1, 3, 5, 7))
            width, height = max(width, left + wide), max(height, top + high)
        break
    return Picture("gif", width, height)


def _jpeg(head: bytes) -> Picture:
    place = 2
    while place + 9 <= len(head):
        if head[place] != 0xFF:
            place += 1
            continue
        mark = head[place + 1]
        if mark == 0xFF:
            place += 1
        elif mark in _JPEG_BARE:
            place += 2
        elif mark in _JPEG_FRAMES:
            height, width = (int.from_bytes(head[place + i : place + i + 2], "big") for i in (5, 7))
            return Picture("jpeg", width, height)
        else:
            place += 2 + max(2, int.from_bytes(head[place + 2 : place + 4], "big"))
    return Picture("jpeg", None, None)


def look_base64(text: str, start: int = 0) -> Picture | None:
    """`look` at base64 text, of which only the head is decoded."""
    head = text[start : start + HEADER * 4 // 3]
    try:
        return look(base64.b64decode(head[: len(head) // 4 * 4]))
    except (binascii.Error, ValueError):
        return None


def too_large(picture: Picture, pixels: int) -> str:
    """Why a picture with too many pixels was refused."""
    return (
        f"The picture is {picture.width} x {picture.height} pixels, at most {pixels} pixels are allowed. "
        "The limit is set by VLLM_MAX_IMAGE_PIXELS when the server is started."
    )
