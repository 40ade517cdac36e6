"""The test's own Sigstore is one that sigstore's verifier believes, and whose faults it finds."""

import base64
import json
from datetime import timedelta
from pathlib import Path

import pytest
from sigstore.errors import Error
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier, policy

from tests.lib.keyless_world import IDENTITY, ISSUER, NOW, World, statement

PAYLOAD = statement("sha256:" + "a" * 64)


def verify(bundle: bytes, world: World, folder: Path, identity: str = IDENTITY) -> bytes:
    root = TrustedRoot.from_file(str(world.write_root(folder / "root.json")))
    asked = policy.Identity(identity=identity, issuer=ISSUER)
    return Verifier(trusted_root=root).verify_dsse(Bundle.from_json(bundle), asked)[1]


def test_a_bundle_of_this_world_is_believed_in_it(tmp_path: Path) -> None:
    assert verify(World().bundle(PAYLOAD), World(), tmp_path) == PAYLOAD


@pytest.mark.parametrize(
    "bundle",
    [
        World().another().bundle(PAYLOAD),
        World().bundle(PAYLOAD, logged=NOW + timedelta(hours=1)),
        World().bundle(PAYLOAD, identity="https://example.com/another"),
        World().bundle(PAYLOAD, issuer="https://example.com"),
        World().bundle(PAYLOAD, logged_payload=b"{}"),
        World().bundle(PAYLOAD).replace(base64.b64encode(PAYLOAD), base64.b64encode(PAYLOAD + b" ")),
    ],
    ids=["other world", "expired", "other identity", "other issuer", "other entry", "changed payload"],
)
def test_its_faults_are_found(bundle: bytes, tmp_path: Path) -> None:
    with pytest.raises(Error):
        verify(bundle, World(), tmp_path)


def test_a_log_that_lost_the_entry_is_not_believed(tmp_path: Path) -> None:
    document = json.loads(World().bundle(PAYLOAD))
    proof = document["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    proof["hashes"] = [base64.b64encode(bytes(32)).decode()]
    with pytest.raises(Error):
        verify(json.dumps(document).encode(), World(), tmp_path)
