"""Whether a pull through nimctl costs more than docker's own: nimctl pull against docker pull REPOSITORY@DIGEST.

An image of layers of text and of random bytes lies in the lab's registry behind a line of 100 Mbit/s (of three
connections, which is what docker opens); both let the same daemon pull it, in turn, and it is removed in between.
Python's start, the registry's answers and the check of what came count for nimctl: a second at most, whatever the size,
so an image of 10 GB would hide it and one of 20 MB would show nothing else; 900 MB (580 MB transferred) is a small one
of this trade. `--free` leaves the limit out and tells what nimctl adds in seconds.

    scripts/bench pull_ratio [--pairs 3] [--mb 900] [--free]
"""

import argparse
import gzip
import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import nullcontext

from benchmarks.pairs import alternate, report
from tests.lib import lab
from tests.lib.lab import push
from tests.lib.remote_images import CONFIG, LAYER, MANIFEST, descriptor, digest

REPOSITORY = "open/bench-pull-ratio"
BAR = 1.03
LAYERS = 12
CONNECTIONS = 3  # layers that docker fetches at once
LINE = 100e6 / 8  # bytes a second


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--mb", type=int, default=900, help="megabytes of the image, unpacked")
    parser.add_argument("--free", action="store_true", help="no limit of the line")
    options = parser.parse_args(arguments)
    host = lab.environment("none")
    manifest, size = make_image(options.mb * 1_000_000 // LAYERS)
    repository = f"{lab.registry_info().address}/{REPOSITORY}"
    tag, exact = f"{repository}:{options.mb}", f"{repository}@{manifest}"

    def timed(*words: str) -> float:
        subprocess.run(["docker", "rmi", "-f", tag, exact], env=host, capture_output=True, check=False)
        begin = time.perf_counter()
        done = subprocess.run(words, env=host, capture_output=True, text=True, timeout=600, check=False)
        took = time.perf_counter() - begin
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)} failed: {done.stderr[-800:]}")
        return took

    line = nullcontext() if options.free else lab.fault(REPOSITORY, rate=int(LINE / CONNECTIONS))
    try:
        with line:
            result = alternate(
                lambda: timed(sys.executable, "-m", "nimctl", "pull", tag),
                lambda: timed("docker", "pull", exact),
                options.pairs,
            )
    finally:
        subprocess.run(["docker", "rmi", "-f", tag, exact], env=host, capture_output=True, check=False)
    more = round(result["ours_median_s"] - result["peer_median_s"], 3)
    limit = "loopback" if options.free else "100 Mbit/s"
    result |= {"image_mb": options.mb, "transferred_bytes": size, "line": limit, "seconds_more": more}
    if options.free:
        sys.stdout.write(f"pull_ratio, {options.mb} MB on loopback: nimctl adds {more} s\n{json.dumps(result)}\n")
        return 0
    return 0 if report("pull_ratio", f"{BAR}x, median of the pairs", result, result["ratio_median"] <= BAR) else 1


def make_image(layer_bytes: int) -> tuple[str, int]:
    """Push the image: layers of random bytes and of text in turn. Returns the manifest's digest and its bytes."""
    generator = random.Random(7)
    client = push._Client(lab.registry_info(), REPOSITORY)
    words = [f"word{number:05}" for number in range(5000)]
    layers, diff_ids = [], []
    for number in range(LAYERS):
        if number % 2:
            text = " ".join(generator.choices(words, k=layer_bytes // 10)).encode()
        else:
            text = generator.randbytes(layer_bytes)
        tar = packed(f"file{number}", text)
        body = gzip.compress(tar, 1, mtime=0)
        client.upload(body)
        layers.append(descriptor(body, LAYER))
        diff_ids.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
    architecture = push.ARCHITECTURES.get(push.platform.machine(), push.platform.machine())
    config = json.dumps(
        {"os": "linux", "architecture": architecture, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    client.upload(config)
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config, CONFIG), "layers": layers}
    ).encode()
    tag = str(layer_bytes * LAYERS // 1_000_000)
    client.call("PUT", f"manifests/{tag}", manifest, {"Content-Type": MANIFEST})
    return digest(manifest), sum(int(layer["size"]) for layer in layers)


def packed(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
