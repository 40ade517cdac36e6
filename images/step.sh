#!/bin/sh
# Run a command as one step of the build, and give what it wrote one time.
# Usage: step.sh ROOTS FOLDER COMMAND...    ROOTS: where it writes (A:B); FOLDER: whose Python is compiled, or -
set -eu
roots=$1 folder=$2
shift 2
if [ -s /run/secrets/proxy ]; then . /run/secrets/proxy; fi
sleep 0.1 # the kernel's clock for files may lag a few milliseconds behind the one that `date` reads
since=$(date +%s.%N)
export PYTHONDONTWRITEBYTECODE=1
"$@"
if [ "$folder" = - ]; then folder=; fi
exec python3.11 /build/settle.py "$since" "$roots" $folder
