"""Ask vLLM once, while the image is built, what each architecture can do, instead of at every first start.

    python model_infos.py FOLDER        writes FOLDER/modelinfos/*.json and FOLDER/architectures.json

vLLM looks at a model's class in a process of its own, which imports all of vLLM once more: ten seconds and more on a
small machine, before anything else happens. It keeps the answer in its cache with a digest of the model's source, and
believes it only while that is the same: so the entrypoint puts it there before the first start.
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/model_executor/models/registry.py (inspect_model_cls)
"""
# ruff: noqa: T201

import contextlib
import io
import json
import logging
import os
import sys
from pathlib import Path


def main() -> int:
    """Write what can be asked here; an architecture that cannot be imported without its GPU is left out. Always 0."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["VLLM_CACHE_ROOT"] = str(folder)
    try:
        from vllm.model_executor.models import registry  # noqa: PLC0415 (reads the variable above)
    except Exception as error:
        print(f"no model is described: {error}")
        return 0
    logging.disable(logging.CRITICAL)
    registry._run_in_subprocess = lambda ask: ask()
    known: dict[str, str] = {}
    for architecture, model in registry.ModelRegistry.models.items():
        with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
            model.inspect_model_cls()
            name = model._get_cache_filename()
            if (folder / "modelinfos" / name).is_file():
                known[architecture] = name
    (folder / "architectures.json").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(known)} of {len(registry.ModelRegistry.models)} architectures are described")
    return 0


if __name__ == "__main__":
    sys.exit(main())
