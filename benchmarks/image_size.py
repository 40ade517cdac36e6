"""How much larger an image is than what it is made of: its locked wheels and its Debian packages.

    scripts/bench image_size [--image NAME] [--start]

Both sides come from the built image: what Docker says it takes, against the sizes in the wheels' own RECORD files and
the Installed-Size of its Debian packages. The rest is bytecode, our code and what the build made, less what it took
away; each is told. With --start a server of the demo is started, and the modules are counted whose bytecode it lacked.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from nimctl.core.image_names import local_tag

BAR = 60e6  # bytes
READY_S = 300

LOOK = """
import csv, glob, json, os, subprocess
site = "/opt/nim/.venv/lib/python3.11/site-packages"
found = {"wheels": 0, "taken_away": 0, "bytecode": {}, "own": 0, "files": 0}
for record in glob.glob(site + "/*.dist-info/RECORD"):
    for path, _, size in csv.reader(open(record)):
        if size:
            found["wheels"] += int(size)
            found["taken_away"] += 0 if os.path.lexists(os.path.join(site, path)) else int(size)
sizes = subprocess.check_output(["dpkg-query", "-W", "-f", "${Installed-Size}\\n"], text=True).split()
found["debian"] = sum(map(int, sizes)) * 1024
mounts = {line.split()[4] for line in open("/proc/self/mountinfo")} - {"/"}
for folder, below, names in os.walk("/"):
    below[:] = [name for name in below if os.path.join(folder, name) not in mounts]
    for name in names:
        path = os.path.join(folder, name)
        if path in mounts:
            continue
        size = os.lstat(path).st_size
        found["files"] += size
        if name.endswith(".pyc"):
            package = path[len(site) + 1:].split("/")[0] if path.startswith(site) else "/".join(path.split("/")[:4])
            found["bytecode"][package] = found["bytecode"].get(package, 0) + size
        elif path.startswith(("/opt/nim/app/", "/opt/nim/etc/")):
            found["own"] += size
print(json.dumps(found))
"""


def docker(*argv: str, stdin: str | None = None, timeout: float = 120) -> str:
    """What a docker command prints; it must succeed."""
    done = subprocess.run(["docker", *argv], input=stdin, capture_output=True, text=True, timeout=timeout, check=True)
    return done.stdout.strip()


def look(image: str) -> dict[str, Any]:
    """Bytes of each side, as the image itself tells them."""
    python = ["run", "--rm", "-i", "--user", "0", "--network", "none", "--entrypoint", "/opt/nim/.venv/bin/python"]
    found: dict[str, Any] = json.loads(docker(*python, image, "-B", "-", stdin=LOOK))
    found["image"] = int(docker("image", "inspect", "-f", "{{.Size}}", image))
    found["excess"] = found["image"] - found["wheels"] - found["debian"]
    return found


def lacking(image: str) -> tuple[int, int]:
    """Modules that a start of the demo imports, and how many of them have no bytecode in the image."""
    prefix = "/tmp/bytecode"
    argv = ["run", "--detach", "--rm", "--shm-size", "2g", "-e", f"PYTHONPYCACHEPREFIX={prefix}", image]
    container = docker(*argv)
    try:
        ready = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/v1/health/ready', timeout=2)"
        deadline = time.monotonic() + READY_S
        while subprocess.run(
            ["docker", "exec", container, "python", "-c", ready], check=False, capture_output=True
        ).returncode:
            if time.monotonic() > deadline:
                raise SystemExit("the demo did not become ready")
            time.sleep(1)
        read = docker("exec", container, "sh", "-c", f"cd {prefix} && find . -path '*/site-packages/*' -name '*.pyc'")
        cached = docker("exec", container, "sh", "-c", "find /opt/nim/.venv -name '*.pyc'")
    finally:
        docker("stop", "--time", "5", container)
    there = {path.replace("__pycache__/", "") for path in cached.splitlines()}
    modules = {path.removeprefix(".") for path in read.splitlines()}
    return len(modules), len(modules - there)


def main() -> int:
    """Print the sums and where the excess lies; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--image", default=local_tag("cpu"))
    parser.add_argument("--start", action="store_true", help="start the demo and count modules without bytecode")
    options = parser.parse_args()
    found = look(options.image)
    met = found["excess"] <= BAR
    bytecode = sorted(found["bytecode"].items(), key=lambda item: -item[1])
    mega = {name: found[name] / 1e6 for name in ("image", "wheels", "debian", "excess", "own", "taken_away")}
    print(
        f"image_size: {mega['image']:.0f} MB, wheels {mega['wheels']:.0f}, Debian's packages {mega['debian']:.0f}: "
        f"{mega['excess']:+.1f} MB, bar {BAR / 1e6:.0f} MB: {'met' if met else 'MISSED'}"
    )
    most = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in bytecode[:6])
    print(f"  bytecode {sum(size for _, size in bytecode) / 1e6:+.1f} MB, most of it of {most}")
    print(f"  our code and lists {mega['own']:+.1f} MB, files of wheels taken away {-mega['taken_away']:+.1f} MB")
    found["bytecode"] = dict(bytecode)
    if options.start:
        modules, without = lacking(options.image)
        print(f"  a start of the demo imports {modules} modules, {without} of them without bytecode")
        found |= {"modules": modules, "without_bytecode": without}
    print(json.dumps({"name": "image_size", "bar": BAR, "met": met, **found}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
