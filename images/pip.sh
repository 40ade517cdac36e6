#!/bin/sh
# Run a command that installs Python packages into the image's virtual environment, then compile what came new.
# Usage: pip.sh COMMAND...
# Read where they exist: /run/secrets/ca (CA bundle), /run/secrets/pip (pip configuration), /wheels (local wheels).
set -eu
site=/opt/nim/.venv/lib/python3.11/site-packages
# Debian ships pip as a wheel that runs from where it lies, so the environment needs no pip of its own.
PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl)
export PYTHONPATH PIP_NO_CACHE_DIR=1 PIP_COMPILE=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export PIP_PROGRESS_BAR=off PIP_NO_INPUT=1
if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi
if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi
if [ -n "$(ls -A /wheels)" ]; then export PIP_FIND_LINKS=/wheels; fi
marker=$(mktemp)
"$@"
# The container's root is read-only, so bytecode is made now; unchecked, because nothing edits these files later.
# Templates and fixtures of some packages are no valid Python: they fail to compile, and never run.
find "$site" -name '*.py' -newer "$marker" | PYTHONPATH='' python -m compileall -qq -j 0 --invalidation-mode unchecked-hash -i - || true
# torch's own C++ tests: 130 MB that nothing loads. protoc goes with them; torch_shm_manager, beside it, is needed.
find "$site/torch/test" "$site/torch/bin" -type f ! -name torch_shm_manager -newer "$marker" -delete 2>/dev/null || true
rm -rf "$marker" /tmp/* /opt/nim/.cache/pip
