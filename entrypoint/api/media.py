"""Pictures, films and sounds in a request: how many, in which format, how large, and from where."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from entrypoint.api import addresses, pictures
from entrypoint.api.addresses import Allowed
from entrypoint.api.refusals import RefusedError
from entrypoint.settings.inside import MOST_PIXELS

# The formats that both of NVIDIA's pages name:
# https://docs.nvidia.com/nim/vision-language-models/1.7.0/examples/kimi-k2.5/api.html
_FORMATS = ("image/gif", "image/jpg", "image/jpeg", "image/png")
_IMAGES = ("image_url", "input_image", "image")
_FILMS_AND_SOUNDS = ("video_url", "audio_url")
# The fields by which the engine knows what a uuid belongs to, whatever the part says of its type. It keeps media under
# their uuid and not under what they are, so that one client's would be taken for another's:
# https://docs.vllm.ai/en/v0.32.0/features/multimodal_inputs.html
_NAMED = frozenset(
    {"image_url", "image_pil", "image_embeds", "audio_embeds", "video_embeds", "prompt_embeds"}
    | {"audio_url", "input_audio", "video_url"}
)
# Turns and their parts together: the engine's report of a wrong part is a page long.
PARTS = 10_000


@dataclass(frozen=True)
class MediaLimits:
    """What one request may hold. `images` is NIM_MAX_IMAGES_PER_PROMPT, `pixels` is of one image."""

    images: int
    allowed: Allowed = field(default_factory=Allowed)
    pixels: int = MOST_PIXELS


def check_media(document: dict[str, Any], limits: MediaLimits) -> None:
    """Refuses what the media in a chat, responses or messages request may not be. Raises RefusedError."""
    images = 0
    for part in parts_of(document):
        if part.get("image_pil") is not None or part.get("type") == "image_pil" or _is_only(part, "image_pil"):
            raise RefusedError("Parts of type 'image_pil' cannot be sent: use image_url")
        if part.get("uuid") is not None and not _NAMED.isdisjoint(part):
            raise RefusedError("Media cannot have a uuid, which others may use too: send the media alone", "uuid")
        for name in _FILMS_AND_SOUNDS:
            if name in part:
                _check_url(_url_of(part, name), limits, name)
        if part.get("type") in _IMAGES or ("image_url" in part and part.get("type") != "computer_screenshot"):
            images += 1
            if images <= limits.images:  # more are refused below, unread
                _check_image(part, limits)
    if images > limits.images:
        raise RefusedError(
            f"The request holds {images} images, at most {limits.images} are allowed in one request. "
            "The limit is set by NIM_MAX_IMAGES_PER_PROMPT when the server is started."
        )


def parts_of(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every part of every turn, tool results included, and the turns themselves. Raises RefusedError for too many."""
    waiting = [item for name in ("messages", "input") for item in _list(document.get(name))]
    count = 0
    while waiting:
        part = waiting.pop()
        count += 1
        if count > PARTS:
            raise RefusedError(f"The request holds more than {PARTS} messages and parts")
        if not isinstance(part, dict):
            continue
        yield part
        for inner in ("content", "output"):
            value = part.get(inner)
            waiting += [value] if isinstance(value, dict) else _list(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_only(part: dict[str, Any], name: str) -> bool:
    """Whether the engine takes a part without a type for one of this name."""
    return part.get("type") is None and name in part and "role" not in part


def _url_of(part: dict[str, Any], name: str) -> Any:
    """The URL in a part; None where it has none and is something else. The engine fails on one that is nothing else."""
    value = part.get(name)
    url = value.get("url") if isinstance(value, dict) else value
    if url is None and (part.get("type") == "input_image" or _is_only(part, name)):
        raise RefusedError(f"A part has no {name}, or null as such", name)
    return url


def _check_image(part: dict[str, Any], limits: MediaLimits) -> None:
    source = part.get("source")
    if part.get("type") == "image" and "image_url" not in part:
        if not isinstance(source, dict):
            raise RefusedError("An image must have a source, which is an object", "source")
        if source.get("type") == "url":
            _check_url(source.get("url"), limits, "source.url")
        elif source.get("type") == "base64":
            data = source.get("data")
            _check_data(str(source.get("media_type", "")), data if isinstance(data, str) else "", 0, limits)
        else:
            raise RefusedError("The source of an image must be of type 'base64' or 'url'", "source.type")
    elif part.get("type") == "input_image" and part.get("file_id") is not None:
        raise RefusedError("Images cannot be given as file_id: this server stores no files", "file_id")
    else:
        _check_url(_url_of(part, "image_url"), limits, "image_url")


def _check_url(url: Any, limits: MediaLimits, name: str) -> None:
    if not isinstance(url, str):
        return  # the engine's own error names the type
    if url[:5].lower() != "data:":
        addresses.target_of(url, limits.allowed)
        return
    comma = url.find(",", 0, 512)
    declared = url[5:comma] if comma >= 0 else url[5:512]
    if comma < 0 or not declared.lower().endswith(";base64"):
        raise RefusedError(f"{name} is a data: URL without base64 data", name)
    if name in ("image_url", "source.url"):
        _check_data(declared.partition(";")[0], url, comma + 1, limits)


def _check_data(declared: str, text: str, start: int, limits: MediaLimits) -> None:
    kind = declared.strip().lower()
    if kind not in _FORMATS:
        raise RefusedError(f"Images of type {kind[:60] or 'unknown'!r} are not supported: use GIF, JPG, JPEG or PNG")
    picture = pictures.look_base64(text, start)
    if picture is None:
        raise RefusedError(f"The image is declared as {kind}, but is not one: use GIF, JPG, JPEG or PNG")
    if picture.pixels > limits.pixels:
        raise RefusedError(pictures.too_large(picture, limits.pixels))
