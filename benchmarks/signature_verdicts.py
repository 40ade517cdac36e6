"""Whether every signature gets the verdict that it deserves, over a real registry, and nothing is asked but that.

Small images are pushed into the lab's registry and signed well and badly: by key in both forms that cosign writes, and
keyless by a Sigstore of the benchmark's own. `nimctl verify --json` judges each as a user would run it, and a pull with
`--verify require` must be refused for each that is not good. `openssl dgst` judges the same bare signatures by key
(the peer: it knows neither digests nor repositories).

    scripts/bench signature_verdicts
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from nimctl.core.secret import Secret
from nimctl.core.signatures import Material
from nimctl.registry.login import Login
from nimctl.registry.pushing import push_signature
from nimctl.registry.reference import parse
from nimctl.trust import keys
from nimctl.trust.signing import sign_image
from tests.lib import lab
from tests.lib.keyless_world import IDENTITY, ISSUER, NOW, World, statement

ROOT = Path(__file__).parent.parent
FOLDER = "open/bench-verdicts"
OTHER = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Case:
    """One image: what lies beside it, and the verdict that it deserves. `rule` is the kind of rule it is under."""

    name: str
    verdict: str
    sign: Callable[[str, str], Sequence[Material]]
    rule: str = "key"


def cases(good: keys.PrivateKey, other: keys.PrivateKey) -> list[Case]:
    """Every situation. `sign(repository, digest)` gives the signatures."""

    def changed(materials: Sequence[Material], change: Callable[[Material], Material]) -> list[Material]:
        return [change(material) for material in materials]

    def keyless(bundle: Callable[[str], bytes]) -> Callable[[str, str], list[Material]]:
        return lambda _, digest: [Material("sigstore-bundle", digest, bundle(digest))]

    world = World()
    old = Material("simple-signing", "", b"{}", "c2ln", {"dev.sigstore.cosign/certificate": "-----BEGIN"})
    return [
        Case("good, by key, simple signing", "good", lambda r, d: sign_image(good, r, d)[:1]),
        Case("good, by key, bundle", "good", lambda r, d: sign_image(good, r, d)[1:]),
        Case("good, beside bad ones", "good", lambda r, d: [*sign_image(other, r, d), *sign_image(good, r, d)]),
        Case("good, keyless", "good", keyless(lambda d: world.bundle(statement(d))), "keyless"),
        Case("good, a mirror", "good", lambda _, d: sign_image(good, "nvcr.io/nim/source", d), "mirror"),
        Case("wrong key, simple signing", "wrong-key", lambda r, d: sign_image(other, r, d)[:1]),
        Case("wrong key, bundle", "wrong-key", lambda r, d: sign_image(other, r, d)[1:]),
        Case("wrong root, keyless", "wrong-key", keyless(lambda d: world.another().bundle(statement(d))), "keyless"),
        Case("none", "none", lambda *_: ()),
        Case("none, an attestation", "none", keyless(lambda d: world.bundle(statement(d, "x://y"))), "keyless"),
        Case("other repository", "other-repository", lambda _, d: sign_image(good, "nvcr.io/nim/other", d)),
        Case("other digest, simple signing", "other-digest",
             lambda r, d: changed(sign_image(good, r, OTHER)[:1], lambda m: replace(m, subject=d))),
        Case("other digest, bundle", "other-digest",
             lambda r, d: changed(sign_image(good, r, OTHER)[1:], lambda m: replace(m, subject=d))),
        Case("changed payload", "wrong-key",
             lambda r, d: changed(sign_image(good, r, d)[:1], lambda m: replace(m, payload=m.payload + b" "))),
        Case("signature is no base64", "malformed",
             lambda r, d: changed(sign_image(good, r, d)[:1], lambda m: replace(m, signature="%%%"))),
        Case("bundle is no JSON", "malformed",
             lambda r, d: changed(sign_image(good, r, d)[1:], lambda m: replace(m, payload=b"junk"))),
        Case("identity wrong", "wrong-identity",
             keyless(lambda d: world.bundle(statement(d), identity="https://evil.example")), "keyless"),
        Case("issuer wrong", "wrong-identity",
             keyless(lambda d: world.bundle(statement(d), issuer="https://evil.example")), "keyless"),
        Case("expired certificate", "expired-certificate",
             keyless(lambda d: world.bundle(statement(d), logged=NOW + timedelta(hours=1))), "keyless"),
        Case("older keyless form", "unsupported", lambda _, d: [replace(old, subject=d)], "keyless"),
        Case("no rule", "no-rule", lambda r, d: sign_image(good, r, d), "none"),
    ]  # fmt: skip


def rule_of(kind: str, name: str) -> str:
    """The rule about the image `name` in the configuration."""
    if kind == "keyless":
        who = f"{{identity: '{IDENTITY}', issuer: '{ISSUER}', trusted_root: root.json}}"
        return f"  - images: {name}\n    keyless: {who}\n"
    if kind == "mirror":
        return f"  - images: {name}\n    signed_as: nvcr.io/nim/source\n    keys: nimctl.pub\n"
    return f"  - images: {name}\n    keys: nimctl.pub\n" if kind == "key" else ""


def nimctl(*arguments: str, env: Mapping[str, str]) -> tuple[int, dict[str, object], float]:
    """Exit code, document and seconds of one command."""
    begin = time.perf_counter()
    argv = [sys.executable, "-m", "nimctl", *arguments, "--json"]
    done = subprocess.run(
        argv, capture_output=True, text=True, env=dict(env), cwd=env["HOME"], timeout=120, check=False
    )
    return done.returncode, json.loads(done.stdout), time.perf_counter() - begin


def openssl(folder: Path, material: Material) -> bool:
    """Whether openssl finds the bare signature to be the key's."""
    (folder / "payload").write_bytes(material.payload)
    try:
        (folder / "signature").write_bytes(base64.b64decode(material.signature, validate=True))
    except ValueError:
        return False
    argv = ["openssl", "dgst", "-sha256", "-verify", folder / "config/nimctl/nimctl.pub", "-signature"]
    done = subprocess.run([*argv, folder / "signature", folder / "payload"], capture_output=True, check=False)
    return done.returncode == 0


def prepare(home: Path) -> tuple[dict[str, str], list[tuple[Case, str, Sequence[Material]]]]:
    """The environment of a user with rules, and the images, each beside its signatures."""
    settings = home / "config" / "nimctl"
    good = keys.read_private(keys.generate(settings, None)[0], None)
    other = keys.read_private(keys.generate(home / "other", None)[0], None)
    World().write_root(settings / "root.json")
    registry = lab.registry_info()
    login = Login(registry.user, Secret(registry.key))
    images, rules = [], []
    for number, case in enumerate(cases(good, other)):
        name = f"{registry.address}/{FOLDER}-{number}"
        digest = lab.push_image(f"{FOLDER}-{number}:1", {"it": os.urandom(8)})
        materials = case.sign(name, digest)
        for material in materials:
            push_signature(parse(f"{name}:1"), login, material)
        rules.append(rule_of(case.rule, name))
        images.append((case, f"{name}:1", materials))
    (settings / "config.yaml").write_text("trust:\n" + "".join(rules))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NIMCTL_", "XDG_", "DOCKER_"))}
    places = {"HOME": home, "XDG_CONFIG_HOME": home / "config", "XDG_STATE_HOME": home / "state", "DOCKER_CONFIG": home}
    client = {"DOCKER_HOST": f"unix://{lab.paths().docker_socket}"}
    return {**kept, **{k: str(v) for k, v in places.items()}, **client, "PYTHONPATH": str(ROOT)}, images


def main() -> int:
    """Judge every image; exit 1 when a verdict is wrong or something unproved was pulled."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    lab.up()
    right, refused, bad, agree, seconds = 0, 0, 0, [], []
    with tempfile.TemporaryDirectory() as folder:
        env, images = prepare(Path(folder))
        for case, image, materials in images:
            _, document, took = nimctl("verify", image, env=env)
            seconds.append(took)
            found = document["image"]["signature"]["verdict"] if "image" in document else document["error"]["id"]  # type: ignore[index]
            mark = "right" if found == case.verdict else "WRONG"
            right += found == case.verdict
            if case.verdict != "good":
                bad += 1
                code, _, _ = nimctl("pull", image, "--verify", "require", env=env)
                here = lab.docker("image", "ls", "-q", image).stdout.strip()
                refused += code in (2, 5) and not here
            bare = [m for m in materials if m.kind == "simple-signing" and not m.annotations]
            if len(bare) == 1 and case.verdict in ("good", "wrong-key"):
                agree.append(openssl(Path(folder), bare[0]) == (found == "good"))
            print(f"{mark:<6}{case.name:<32}{found:<20}{took:5.2f} s", file=sys.stderr)
    met = right == len(images) and refused == bad and all(agree)
    print(f"signature verdicts: {right}/{len(images)} right, bar all: {'met' if met else 'MISSED'}")
    print(f"pulls refused under --verify require: {refused}/{bad}; openssl agrees: {sum(agree)}/{len(agree)}")
    figures = {"right": right, "of": len(images), "refused": refused, "of_bad": bad, "openssl_agrees": sum(agree)}
    median = round(statistics.median(seconds), 3)
    print(json.dumps({"name": "signature verdicts", "bar": "all", "met": met, **figures, "median_s": median}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
