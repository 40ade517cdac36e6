"""What the lab's registry can be made to do wrong: each fault as a plain HTTP client meets it, and gone afterwards."""

import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.lib import lab

pytestmark = pytest.mark.lab

REPOSITORY = "open/lab-faults"
CONTENT = bytes(range(256)) * 1024  # in a tar, so the blob is a little longer


@dataclass(frozen=True)
class Image:
    """What of an image the tests ask for."""

    manifest: str
    layer: str
    size: int


@pytest.fixture(scope="module")
def image() -> Image:
    return pushed("1", CONTENT)


def pushed(tag: str, content: bytes) -> Image:
    digest = lab.push_image(f"{REPOSITORY}:{tag}", {"content": content})
    layer = json.loads(get(f"manifests/{digest}")[1])["layers"][0]
    return Image(digest, layer["digest"], layer["size"])


@contextmanager
def asked(path: str, headers: dict[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(lab.registry_info().address, timeout=20)
    try:
        connection.request("GET", f"/proxy_auth?scope=repository:{REPOSITORY}:pull")
        token = json.loads(connection.getresponse().read())["token"]
        media = "application/vnd.oci.image.manifest.v1+json"
        connection.request(
            "GET",
            f"/v2/{REPOSITORY}/{path}",
            headers={"Authorization": f"Bearer {token}", "Accept": media} | (headers or {}),
        )
        yield connection.getresponse()
    finally:
        connection.close()


def get(path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    with asked(path, headers) as response:
        return response.status, response.read()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_cut_ends_the_body_once_and_the_rest_can_be_had(image: Image) -> None:
    with lab.fault(REPOSITORY, cut=1000, times=1):
        with pytest.raises(http.client.IncompleteRead) as cut:
            get(f"blobs/{image.layer}")
        status, rest = get(f"blobs/{image.layer}", {"Range": "bytes=1000-"})
    assert (len(cut.value.partial), status) == (1000, 206)
    assert digest(cut.value.partial + rest) == image.layer


def test_a_stall_sends_a_part_and_then_nothing(image: Image) -> None:
    with lab.fault(REPOSITORY, stall=1000), asked(f"blobs/{image.layer}") as response:
        assert len(response.read(1000)) == 1000
        assert response.fp is not None
        response.fp.raw._sock.settimeout(0.1)  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            response.read(1)


def test_a_slow_blob_takes_its_time_and_a_fault_is_gone_with_its_block(image: Image) -> None:
    with lab.fault(REPOSITORY, rate=1_000_000):
        began = time.monotonic()
        assert digest(get(f"blobs/{image.layer}")[1]) == image.layer
        assert time.monotonic() - began >= 0.9 * image.size / 1_000_000  # what was asked for, not what it can do
    assert digest(get(f"blobs/{image.layer}")[1]) == image.layer


@pytest.mark.parametrize("asked_from", [0, 2000])
def test_one_bit_is_flipped_wherever_the_reading_starts(image: Image, asked_from: int) -> None:
    whole = get(f"blobs/{image.layer}")[1]
    headers = {"Range": f"bytes={asked_from}-"} if asked_from else {}
    with lab.fault(REPOSITORY, flip=3000, blob=image.layer):
        got = get(f"blobs/{image.layer}", headers)[1]
    different = [asked_from + i for i, (a, b) in enumerate(zip(got, whole[asked_from:], strict=True)) if a != b]
    assert different == [3000]


def test_a_refusal_comes_after_so_many_requests_and_so_often(image: Image) -> None:
    with lab.fault(REPOSITORY, status=503, after=1, times=2):
        assert [get(f"blobs/{image.layer}")[0] for _ in range(4)] == [200, 503, 503, 200]


def test_only_the_named_blob_and_repository_are_struck(image: Image) -> None:
    with lab.fault(REPOSITORY, status=500, blob="sha256:other"), lab.fault("open/lab-other", status=500):
        assert get(f"blobs/{image.layer}")[0] == 200


def test_two_faults_take_turns(image: Image) -> None:
    with lab.fault(REPOSITORY, status=500, times=1), lab.fault(REPOSITORY, status=404, times=1):
        assert [get(f"blobs/{image.layer}")[0] for _ in range(3)] == [404, 500, 200]


def test_a_tag_moves_under_the_eyes_of_who_asks_twice(image: Image) -> None:
    other = pushed("other", b"other")
    with lab.swapped_tag(REPOSITORY, "1", other.manifest, after=1):
        assert [digest(get("manifests/1")[1]) for _ in range(2)] == [image.manifest, other.manifest]
    assert digest(get("manifests/1")[1]) == image.manifest


def test_a_bit_rots_on_the_registrys_disk_and_is_mended(image: Image) -> None:
    with lab.rotten_blob(image.layer, 17):
        assert digest(get(f"blobs/{image.layer}")[1]) != image.layer
    assert digest(get(f"blobs/{image.layer}")[1]) == image.layer


def test_requests_and_bytes_are_counted_by_repository(image: Image) -> None:
    before, other = lab.served(REPOSITORY), lab.served("open/tiny")
    manifest = get("manifests/1")[1]
    get(f"blobs/{image.layer}", {"Range": "bytes=0-9"})
    assert lab.served(REPOSITORY) - before == lab.Served(1, 1, len(manifest), 10)
    assert lab.served("open/tiny") == other


def test_nobody_listens_while_it_is_down_and_its_images_are_there_again(image: Image) -> None:
    with lab.registry_down(), pytest.raises(ConnectionRefusedError):
        get("manifests/1")
    assert digest(get("manifests/1")[1]) == image.manifest


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(lab.LabError, match="no fault of blobs is called cutt"), lab.fault(REPOSITORY, cutt=1):
        pass
