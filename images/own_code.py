"""Bring parts of our own code into the image; what an earlier layer holds is left alone.

python own_code.py FOLDER...        relative to /code, such as nimctl/core/fetch
"""

import shutil
import sys
from pathlib import Path

CODE, APP = Path("/code"), Path("/opt/nim/app")

for name in sys.argv[1:]:
    for source in sorted((CODE / name).rglob("*")):
        target = APP / source.relative_to(CODE)
        if source.is_file() and not target.exists():
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o644)
