#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command and under nine minutes:
#
#     bash bench/on_gpu.sh [FOLDER]
#
# First the kernels' own tests on the GPU (where pytest is installed), then the benchmark, which
# checks every kernel once more at true sizes before it times it. Nothing but Python 3.11 or newer,
# torch and triton is needed, and nothing is installed. FOLDER ($OUT, or out/bench) gets tests.log,
# kernels.log, kernels.txt and kernels.json, whose digest is the last line of the output.
# TESTS_SECONDS and BENCH_SECONDS change how long either part may take; MODULES, what is measured.
set -u
cd "$(dirname "$0")/.."
out=${1:-${OUT:-out/bench}}
mkdir -p "$out"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python=${PYTHON:-python3}

if "$python" -c 'import pytest' 2>/dev/null; then
  # Compiling takes the time, so in several processes where that is possible. The options of
  # pyproject.toml ask for plugins that need not be there.
  "$python" -c 'import xdist' 2>/dev/null && workers="-n 12" || workers=""
  # shellcheck disable=SC2086  # two words or none
  VR_TRT_KERNELS_ON=cuda timeout --signal=INT --kill-after=10 "${TESTS_SECONDS:-110}" \
    "$python" -m pytest -q -p no:cacheprovider -c /dev/null --rootdir "$PWD" \
    --import-mode=importlib -o python_files='run_*.py' $workers tests/kernels tests/engines \
    >"$out/tests.log" 2>&1
  echo "kernels' tests on the GPU: exit code $? (124: the time was up); $(tail -n 1 "$out/tests.log")"
else
  echo "kernels' tests on the GPU: not run, pytest is not installed"
fi

# shellcheck disable=SC2086  # MODULES is a list of words
exec timeout --signal=INT --kill-after=15 "$((${BENCH_SECONDS:-390} + 20))" \
  "$python" -m vr_trt.bench.kernels --out "$out" --seconds "${BENCH_SECONDS:-390}" ${MODULES:-}
