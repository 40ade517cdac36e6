"""A lock as text: the same bytes for the same lock, read back whole, and refused where it does not hold together."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimctl.core.errors import NimctlError
from nimctl.lock import making
from nimctl.lock.model import Lock
from nimctl.lock.reading import LARGEST, read
from nimctl.lock.writing import digest_of, write
from tests.unit.lock.locks import INDEX, WHOLE, locks

SCHEMA = jsonschema.Draft202012Validator(json.loads((Path(__file__).parents[3] / "docs/schemas/lock.json").read_text()))
settings.register_profile("locks", deadline=None, max_examples=25)
FEW = settings.get_profile("locks")
TEXT = write(WHOLE)


@FEW
@given(locks())
def test_what_is_written_is_read(lock: Lock) -> None:
    text = write(lock)
    assert read(text.encode(), "x") == lock
    assert write(read(text.encode(), "x")) == text
    SCHEMA.validate(json.loads(text))


@FEW
@given(locks(), st.randoms())
def test_the_order_of_mappings_changes_no_byte(lock: Lock, random: Any) -> None:
    def shuffled(mapping: dict[str, Any]) -> dict[str, Any]:
        keys = list(mapping)
        random.shuffle(keys)
        return {key: mapping[key] for key in keys}

    other = replace(
        lock,
        variables=shuffled(dict(lock.variables)),
        image=replace(lock.image, labels=shuffled(dict(lock.image.labels))),
        engine=replace(lock.engine, options=lock.engine.options and shuffled(dict(lock.engine.options))),
    )
    assert write(other) == write(lock)


def test_a_changed_file_is_one_changed_line() -> None:
    assert WHOLE.weights is not None
    first, *rest = WHOLE.weights.files
    changed = replace(WHOLE.weights, files=(replace(first, digest="git-sha1:" + "7" * 40), *rest))
    other = write(replace(WHOLE, weights=changed))
    assert sum(a != b for a, b in zip(TEXT.splitlines(), other.splitlines(), strict=True)) == 1
    assert digest_of(TEXT.encode()) != digest_of(other.encode())


def test_no_secret_no_time_no_folder_is_in_it() -> None:
    assert '"MY_API_KEY": null' in TEXT
    assert "/home" not in TEXT and "202" not in TEXT


def refused(text: bytes | str) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        read(text.encode() if isinstance(text, str) else text, "nimctl.lock")
    assert caught.value.id == "lock-invalid"
    return caught.value


def edited(edit: Callable[[Any], None]) -> str:
    document = json.loads(TEXT)
    edit(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"{", "no JSON"),
        (b"[]", "a mapping is expected"),
        (b"null", "a mapping is expected"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"schema": "nimctl.lock/2"}', "nimctl.lock/2"),
        (b'{"schema": "nimctl.lock/1", "schema": "nimctl.lock/1"}', "twice"),
        (b'{"schema": "nimctl.lock/1", "gpus": NaN}', "NaN is no number"),
        (b" " * (LARGEST + 1), "no lock has more than"),
        (TEXT.replace('"model": "kimi-k2.5"', '"model": "\\u001b[2J"').encode(), "no text"),
        (TEXT.replace('"model": "kimi-k2.5"', '"model": "\\ud800"').encode(), "no text"),
        (TEXT.replace("2147483648", "1e999").encode(), "too large"),
        (TEXT.replace("<<<<<<<", "").replace("{\n", "<<<<<<< HEAD\n{\n", 1).encode(), "no JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_lock_is_refused(text: bytes, cause: str) -> None:
    assert cause in refused(text).cause


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        *parents, last = path.split(".")
        for key in parents:
            document = document[int(key) if isinstance(document, list) else key]
        document[int(last) if isinstance(document, list) else last] = value

    return edit


@pytest.mark.parametrize(
    ("path", "value", "cause"),
    [
        ("image.digest", "sha256:123", "image.digest is no digest"),
        ("image.digest", INDEX.upper(), "image.digest is no digest"),
        ("image.manifests", {"linux/amd64": "latest"}, "is no digest"),
        ("image.reference", "a b", "no reference"),
        ("image.reference", f"registry.example/a@sha256:{'e' * 64}", "different images"),
        ("image.platform", "amd64", "linux/amd64"),
        ("image.extra", 1, "unknown key 'extra'"),
        ("weights.files.0.path", "../../etc/passwd", "not a path inside a checkpoint"),
        ("weights.files.0.path", "/etc/passwd", "not a path inside a checkpoint"),
        ("weights.files.0.path", "a\\b", "not a path inside a checkpoint"),
        ("weights.files.0.path", "model.safetensors", "twice"),
        ("weights.files.0.path", "zzz", "not sorted"),
        ("weights.files.0.size", -1, "not a size"),
        ("weights.files.0.size", 99, "weights.bytes is"),
        ("weights.files.0.digest", "sha256:xyz", "not a digest"),
        ("weights.files", [], "empty"),
        ("weights.bytes", 2**70, "too large"),
        ("weights.source", "hf://a/b?token=hf_0123456789abcdef", "holds a secret"),
        ("recipe.sha256", "short", "no SHA-256"),
        ("layout.id", "short", "not the id"),
        ("layout.profile", "tp8", "not the name of a profile"),
        ("layout.tensor", 4, "its sizes are not those of"),
        ("gpus.count", 4, "8 ranks for 4 GPUs"),
        ("gpus.count", -8, "8 ranks for -8"),
        ("gpus.model", None, "do not fit"),
        ("gpus.count", "8", "int is expected"),
        ("variables", {"1A": "x"}, "no name of a variable"),
        ("variables", {"HF_TOKEN": "hf_0123456789abcdef"}, "holds a secret"),
        ("variables", {"GREETING": "Bearer hf_0123456789abcdef"}, "holds a secret"),
        ("variables", {"DB_URL": "postgres://user:hidden@host/db"}, "holds a secret"),
        ("engine.arguments", ["--x", "nvapi-0123456789abcdef"], "hold a secret"),
        ("engine.arguments", ["--x=http://user:hidden@host:80"], "hold a secret"),
        ("container.shm_bytes", -1, "below 0"),
    ],
)
def test_a_lock_that_was_edited_by_hand_has_to_hold_together(path: str, value: Any, cause: str) -> None:
    assert cause in refused(edited(_set(path, value))).cause


def test_a_lock_without_any_digest_of_its_image_says_nothing() -> None:
    text = edited(lambda d: d["image"].update(digest=None, config=None, manifests={}))
    assert "which it is" in refused(text).cause


@FEW
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_whatever_is_there_ends_in_one_error(text: bytes) -> None:
    refused(text)


@FEW
@given(st.data())
def test_a_lock_with_one_value_changed_is_read_or_refused(data: st.DataObject) -> None:
    document = json.loads(TEXT)
    here: Any = document
    while True:
        keys = list(here) if isinstance(here, dict) else range(len(here))
        key: Any = data.draw(st.sampled_from(list(keys)))
        inner = here[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            break
        here = inner
    here[key] = data.draw(st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just([]) | st.just({}))
    try:
        read(json.dumps(document).encode(), "x")
    except NimctlError as error:
        assert error.id == "lock-invalid"


@pytest.mark.parametrize(
    ("value", "locked"),
    [
        ("postgres://user:hidden@host/db", None),
        ("jdbc:postgresql://user:hidden@host", None),
        ("http://host:80/a@b:c", "http://host:80/a@b:c"),
        ("git@host:path", "git@host:path"),
        ("http://user@host", "http://user@host"),
    ],
)
def test_an_address_with_a_password_is_locked_by_its_name_alone(value: str, locked: str | None) -> None:
    assert making.variables([("DB_URL", value)]) == {"DB_URL": locked}
