"""Fault: little memory. What a fetch holds is bounded, whatever the source."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimctl.core.fetch import manifest
from nimctl.core.fetch.sources import checksums
from nimctl.core.fetch.transfer.blocks import BLOCK
from nimctl.core.fetch.transfer.limit import MOST
from tests.lib.fault_hub import Content, FaultHub, InMemory, Slow, Sparse, StoredFile, sha256_of

MOST_MEMORY = 256 * 1024  # KiB
SHARDS = {f"model-{n:05d}-of-{MOST:05d}.safetensors": Sparse(6 * BLOCK + n, n) for n in range(1, MOST + 1)}
CONTENTS: dict[str, Content] = {"config.json": InMemory(b"{}"), **SHARDS}
WEIGHTS = "*.safetensors"
LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix>m/</Prefix>
<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>
"""
ENTRY = """<Contents><Key>m/{path}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>
<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[FaultHub]:
    with FaultHub(tls=True) as hub:
        yield hub


@pytest.fixture
def cache(folder) -> Path:
    return folder / "cache"


def from_a_mirror(hub: FaultHub) -> tuple[str, dict[str, str]]:
    """A folder over https, with the document that says what it holds."""
    files = []
    for path, content in CONTENTS.items():
        hub.add_file(f"m/{path}", content)
        files.append({"path": path, "size": content.size, "digest": f"sha256:{sha256_of(content)}"})
    document = {"schema": manifest.SCHEMA, "files": files}
    hub.add_file(f"m/{checksums.MANIFEST}", json.dumps(document).encode())
    return f"{hub.files_url}/m/", {}


def from_an_object_store(hub: FaultHub) -> tuple[str, dict[str, str]]:
    """A bucket that is listed by one document, whose keys answer as S3's do."""
    entries = []
    for path, content in CONTENTS.items():
        hub.add_file(key := f"bucket/m/{path}", content)
        etag = StoredFile("", key, content).storage_etag.replace('"', "&quot;")
        entries.append(ENTRY.format(path=path, etag=etag, size=content.size))
    hub.add_file("bucket", LISTING.format(count=len(entries), entries="".join(entries)).encode())
    return "s3://bucket/m", {"AWS_ENDPOINT_URL": hub.files_url, "AWS_REGION": "us-east-1"}


@pytest.mark.parametrize("source", [from_a_mirror, from_an_object_store])
def test_all_connections_at_once_stay_below_256_mib(hub, fetchers, cache, source):
    uri, environment = source(hub)
    hub.fail(WEIGHTS, Slow(12 * 2**20))  # so that no connection has ended before the last one begins
    before = hub.ledger.mark()
    environment |= {"SSL_CERT_FILE": str(hub.ca_file)}
    ended = fetchers.run(cache, None, uri=uri, environment=environment, connections=MOST)
    assert ended.code == 0, ended
    blobs = [path.stat().st_size for path in cache.glob("**/blobs/*")]
    assert sum(blobs) > len(SHARDS) * 6 * BLOCK, "all of it came"
    asked = {entry.peer for entry in hub.requests(WEIGHTS, role="content", since=before)}
    sys.stdout.write(f"{ended.peak / 1024:.0f} MiB at most over {len(asked)} connections\n")
    assert len(asked) >= MOST
    assert ended.peak <= MOST_MEMORY
