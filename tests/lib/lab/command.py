"""The command line of `scripts/lab`."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence

from . import control, simulated
from .gpus import NONE
from .paths import STORES, paths
from .steps import LabError, say


def main(arguments: Sequence[str]) -> int:
    """Run one verb. Exit codes: 0; 1 where the lab cannot do it, with cause and fix; 3 for a status that is down."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except LabError as error:
        say(f"{error.cause}. To fix it: {error.fix}.")
        return 1


def _run(options: argparse.Namespace) -> int:
    place = paths()
    if options.verb == "up":
        control.up(place, options.only)
    elif options.verb == "down":
        control.down(place, purge=options.purge)
    elif options.verb == "status":
        found = control.status(place)
        lines = [f"{part:16} {where or '-'}" for part, where in found.items()]
        _out(json.dumps(found) if options.json else "\n".join(lines))
        return 0 if found["engine"] else 3
    else:
        place = place.with_store(options.store)
        control.have_store(place)
        variables = simulated.simulated_host(place, options.profile)
        _out(json.dumps(variables) if options.json else _exports(variables))
    return 0


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _exports(variables: dict[str, str]) -> str:
    # A shell that evaluates `env` twice must not keep the GPUs of the first host.
    gone = [name for name in ("NVML_DOUBLE_JSON", "LD_LIBRARY_PATH") if name not in variables]
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*(f"unset {name}" for name in gone), *lines])


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    unknown = set(parts) - set(control.ALL_PARTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the parts are {', '.join(control.ALL_PARTS)}")
    return parts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/lab", description="A private Docker Engine, a registry, simulated GPUs."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="have it running; run again at will")
    up.add_argument("--only", type=_parts, default=list(control.PARTS), metavar=",".join(control.ALL_PARTS))
    down = verbs.add_parser("down", help="stop what up started")
    down.add_argument("--purge", action="store_true", help="delete the state folder too")
    status = verbs.add_parser("status", help="what runs; exit code 3 when the engine does not")
    env = verbs.add_parser("env", help='become a simulated host, print its exports: eval "$(scripts/lab env 2xH200)"')
    env.add_argument("profile", nargs="?", default=NONE, help="2xH200, 8xB200, mig, ...; default none: no GPUs")
    env.add_argument("--store", choices=STORES, default=STORES[0], help="the engine with this image store")
    for verb in (status, env):
        verb.add_argument("--json", action="store_true")
    return parser
