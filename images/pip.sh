#!/bin/sh
# Run a command that installs Python packages into the image's virtual environment, and leave nothing else behind.
# Usage: pip.sh COMMAND...
# Read where they exist: /run/secrets/ca (CA bundle), /run/secrets/pip (pip configuration), /wheels (local wheels).
set -eu
site=/opt/nim/.venv/lib/python3.11/site-packages
# Debian ships pip as a wheel that runs from where it lies, so the environment needs no pip of its own.
PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl)
export PYTHONPATH PIP_NO_CACHE_DIR=1 PIP_COMPILE=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export PIP_PROGRESS_BAR=off PIP_NO_INPUT=1 PIP_REPORT=/tmp/pip-report.json
if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi
if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi
if [ -n "$(ls -A /wheels)" ]; then export PIP_FIND_LINKS=/wheels; fi
since=$(date +%s.%N)
"$@"
# torch's own C++ tests: 130 MB that nothing loads. protoc goes with them; torch_shm_manager, beside it, is needed.
for folder in "$site/torch/test" "$site/torch/bin"; do
    if [ -d "$folder" ]; then find "$folder" -type f ! -name torch_shm_manager -newerct "@$since" -delete; fi
done
find /tmp -mindepth 1 ! -name 'pip-report*.json' -delete
rm -rf /opt/nim/.cache/pip
