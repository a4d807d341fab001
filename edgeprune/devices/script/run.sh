#!/bin/sh
# Measures the models of this folder: sh run.sh, or PYTHON=/path/to/python3 sh run.sh.
# Writes result.json here; nothing outside this folder is changed.
set -u
cd "$(dirname "$0")" || exit 1
PYTHON=${PYTHON:-python3}

fail() {
    echo "error: $*" >&2
    exit 1
}

missing() {
    for module in numpy onnxruntime; do
        "$1" -c "import $module" >/dev/null 2>&1 || printf ' %s' "$module"
    done
}

command -v "$PYTHON" >/dev/null 2>&1 ||
    fail "there is no '$PYTHON' here; install Python 3.9 or later, or name one: PYTHON=/path/to/python3 sh run.sh"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    fail "'$PYTHON' is no Python of 3.9 or later; name one: PYTHON=/path/to/python3 sh run.sh"
lacks=$(missing "$PYTHON")
if [ -n "$lacks" ] && [ -x venv/bin/python ] && [ -z "$(missing venv/bin/python)" ]; then
    PYTHON=venv/bin/python
elif [ -n "$lacks" ]; then
    echo "'$PYTHON' lacks$lacks: making a virtual environment in $(pwd)/venv" >&2
    rm -rf venv
    "$PYTHON" -m venv venv >&2 || {
        rm -rf venv
        fail "'$PYTHON' lacks$lacks and makes no virtual environment; install the package python3-venv, or$lacks"
    }
    venv/bin/python -m pip install --quiet --retries 1 --only-binary :all: numpy onnxruntime >&2 || {
        rm -rf venv
        fail "'$PYTHON' lacks$lacks and pip cannot install that here; install it by hand, or copy wheels to this device"
    }
    PYTHON=venv/bin/python
fi
rm -f result.json
ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 "$PYTHON" measure.py job.json result.json
status=$?
[ -f result.json ] || fail "the measurement ended with status $status and wrote no result"
[ $status -eq 0 ] || exit $status
echo "done; copy result.json back, then there: edgeprune profile MODEL.onnx --result result.json"
