import os
from pathlib import Path

import pytest


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose PATH holds nothing but git and what a test puts into `bin`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
