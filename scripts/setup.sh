# Sourced by scripts/demo, scripts/test, scripts/lint and scripts/bench: makes .venv and says what it does.
# Everything is locked with hashes; pip's own configuration (mirror, CA, wheel folder) is used as it is.
# A stamp per step holds the hash of its lock file, so that a second run costs nothing.

VENV=.venv
CLIENTS=.venv-clients
say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 9; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "Python 3.11 or later is needed and was not found; install it, or name it: PYTHON=/path/to/python3 $0"
}

# step NAME FILE... -- COMMAND...: run COMMAND unless the FILEs are as they were when it last succeeded in $VENV
step() {
  local name=$1 files=() sum
  shift
  while [ "$1" != "--" ]; do files+=("$1"); shift; done
  shift
  sum=$(cat "${files[@]}" | sha256sum | cut -d' ' -f1)
  [ "$(cat "$VENV/.$name" 2>/dev/null)" = "$sum" ] && return
  local begin=$SECONDS
  say "$name: ${files[*]}"
  "$@" || die "$name failed; the lines above say why. It can be run again."
  echo "$sum" >"$VENV/.$name"
  say "$name took $((SECONDS - begin)) s"
}

# pip's chatter goes to a file and is shown only when it fails; its own configuration decides where from.
pip_install() {
  "$VENV/bin/python" -m pip install --disable-pip-version-check --no-deps "$@" >"$VENV/pip.log" 2>&1 && return
  tail -n 20 "$VENV/pip.log" >&2
  return 1
}

make_venv() {
  local python
  python=$(find_python)
  if [ ! -x "$VENV/bin/python" ]; then
    say "virtual environment $VENV with $("$python" --version)"
    "$python" -m venv "$VENV" || die "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"
  fi
  step host-packages requirements/host.txt -- pip_install --require-hashes -r requirements/host.txt
  step nimctl pyproject.toml -- pip_install --editable .
}

make_dev() { step dev-packages requirements/dev.txt -- pip_install --require-hashes -r requirements/dev.txt; }

# Clients that do not fit into $VENV beside the engine: an environment of their own, for programs of their own.
make_clients() {
  local VENV=$CLIENTS
  [ -x "$VENV/bin/python" ] || "$(find_python)" -m venv "$VENV" || die "python3 -m venv $VENV failed"
  step clients requirements/clients.txt -- pip_install --no-compile --require-hashes -r requirements/clients.txt
}

install_engine_cpu() {
  "$VENV/bin/python" images/cpu/install_torch.py \
    && pip_install --require-hashes -r images/cpu/requirements.txt \
    && "$VENV/bin/python" images/cpu/name_vllm.py
}

# The engine for this host's process runtime: vLLM for the CPU, or for CUDA where NVML finds a GPU ($1: cpu or cuda).
make_engine() {
  if [ "$1" = cuda ]; then
    step engine-cuda images/cuda/requirements.txt -- pip_install --require-hashes -r images/cuda/requirements.txt
  else
    step engine-cpu images/cpu/requirements.txt -- install_engine_cpu
  fi
}

# system_packages PACKAGE...: installs what is missing, as root, and says which; else says what to type
system_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "these programs are needed: ${missing[*]}; install them with your package manager"
  [ "$(id -u)" = 0 ] || die "these packages are needed: sudo apt-get install ${missing[*]}"
  say "installing system packages as root: ${missing[*]}"
  { apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }; } \
    || die "apt-get could not install ${missing[*]}"
}
