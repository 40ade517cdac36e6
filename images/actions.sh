#!/bin/sh
# Make each action of the entrypoint a command of its own, and write the manifest of what can be served.
# Usage: actions.sh ACTION...
set -eu
for action in "$@"; do
    printf '#!/bin/sh\nexec /opt/nim/.venv/bin/python -m entrypoint %s "$@"\n' "$action" > "/opt/nim/.venv/bin/$action"
    chmod 0755 "/opt/nim/.venv/bin/$action"
done
mkdir -p /opt/nim/etc/default
model-manifest > /opt/nim/etc/default/model_manifest.yaml
