"""Write whole documents of situations: `python -m tests.hosts.save NAME...` makes a file in `saved/` of each.

They stay as they were written. A document that an older version saved is read by every newer one, and so these are.
"""

import json
import re
import sys
from pathlib import Path

from nimctl.core.facts import to_json
from tests.hosts import situation

SAVED = Path(__file__).parent / "saved"


def file_of(name: str) -> Path:
    """Where the whole document of a situation lies, if it was saved."""
    return SAVED / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def save(name: str) -> Path:
    """Write the document of a situation as `nimctl doctor --save-facts` does. Raises KeyError for an unknown name."""
    met = {s.name: s for s in situation.load()}[name]
    path = file_of(name)
    path.write_text(json.dumps(to_json(met.facts()), indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        sys.stdout.write(f"{save(wanted)}\n")
