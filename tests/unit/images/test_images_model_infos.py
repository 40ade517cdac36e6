"""What the image knows of architectures: asked of vLLM's registry in one process, whatever cannot be asked left out."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "images/model_infos.py"

# As vLLM's registry behaves: it asks through `_run_in_subprocess` and keeps the answer below VLLM_CACHE_ROOT.
REGISTRY = """
import os
from pathlib import Path

def _run_in_subprocess(ask):
    raise AssertionError("a process for each model")

class Model:
    def __init__(self, name, error=None):
        self.name, self.error = name, error

    def _get_cache_filename(self):
        return f"{self.name}.json"

    def answer(self):
        if self.error:
            raise self.error
        return "{}"

    def inspect_model_cls(self):
        answer = _run_in_subprocess(self.answer)
        folder = Path(os.environ["VLLM_CACHE_ROOT"]) / "modelinfos"
        folder.mkdir(exist_ok=True)
        if self.name != "unwritten":
            (folder / self._get_cache_filename()).write_text(answer)

class ModelRegistry:
    models = {
        "Kimi": Model("kimi"),
        "NeedsGpu": Model("gpu", RuntimeError("no GPU")),
        "NeedsPackage": Model("package", ImportError("torchvision")),
        "Unwritten": Model("unwritten"),
        "Alias": Model("kimi"),
    }
"""


def run(tmp_path: Path, registry: str | None) -> tuple[str, Path]:
    package = tmp_path / "site/vllm/model_executor/models"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    if registry is not None:
        (package / "registry.py").write_text(registry)
    out = tmp_path / "out"
    environ = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, SCRIPT, out], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout, out


def test_what_can_be_asked_is_kept_by_architecture(tmp_path: Path) -> None:
    said, out = run(tmp_path, REGISTRY)
    assert said == "2 of 5 architectures are described\n"
    assert json.loads((out / "architectures.json").read_text()) == {"Alias": "kimi.json", "Kimi": "kimi.json"}
    assert [path.name for path in (out / "modelinfos").iterdir()] == ["kimi.json"]


def test_an_engine_that_cannot_be_imported_here_does_not_end_the_build(tmp_path: Path) -> None:
    said, out = run(tmp_path, None)
    assert "no model is described" in said and not (out / "architectures.json").exists()
