#!/usr/bin/env bash
# The local gate: every scan on this checkout, without a network. Finds the Python that has codex-ml's tools and leaves the
# rest to tools/local_gates.py, which says PASS or FAIL for each. Usage: scripts/codex_local_gates.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The full help is that of tools/local_gates.py; without its environment this much is known.
usage() {
  echo "usage: scripts/codex_local_gates.sh [--list] [--only SCAN …] [--rehearse-audit]   (docs/how-to/run-the-security-gates.md)"
  echo "runs every scan without a network; exit code 0 when all passed, 1 when one failed or could not scan, 2 when not started"
}

# PYTHON names one; otherwise that of make, otherwise that of the activated environment.
python="${PYTHON:-}"
if [ -z "$python" ]; then
  if [ -x .venv/bin/python ]; then
    python=.venv/bin/python
  else
    python="$(command -v python3 || true)"
  fi
fi
if ! command -v -- "${python:-none}" >/dev/null; then
  echo "the gate cannot be started: no Python (${python:-none}); run: make quality, or set PYTHON=…" >&2
  exit 2
fi
if ! "$python" -c 'import codex_ml, packaging, pre_commit, yaml' 2>/dev/null; then
  if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
    usage
    exit 0
  fi
  echo "the gate cannot be started: $python lacks codex-ml's tools; run: pip install -e '.[dev]' && make gates-setup" >&2
  exit 2
fi
exec "$python" tools/local_gates.py "$@"
