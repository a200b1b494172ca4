#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command and under nine minutes:
#
#     bash bench/on_gpu.sh [FOLDER]
#
# First the kernels' own tests on the GPU (where pytest is installed), then the VAE's kernels are
# compiled in as many processes as there are cores, then the benchmark, which checks every kernel once
# more at true sizes before it times it. Nothing but Python 3.11 or newer, numpy, torch and triton is
# needed, and nothing is installed. FOLDER ($OUT, or out/bench) gets tests.log, warm.log, bench.log,
# bench.txt, kernels.log, kernels.txt and kernels.json. Each part has its own time and may fail by
# itself; the last line of the output is JSON all the same, and says whether tests or benchmark did.
# TESTS_SECONDS, WARM_SECONDS and BENCH_SECONDS change how long a part may take; MODULES, what is
# measured; VR_TRT_COMMIT, of which commit this is, where the checkout came without its history.
# SMALL=1 tries the script without a GPU, in Triton's interpreter.
set -u
cd "$(dirname "$0")/.."
out=${1:-${OUT:-out/bench}}
mkdir -p "$out"
rm -f "$out"/{tests,warm,bench,kernels}.log "$out"/kernels.{json,txt}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
on=cuda small=""
if [ -n "${SMALL:-}" ]; then on=cpu small=--small; export TRITON_INTERPRET=1; fi

tests=absent
if "$python" -c 'import pytest' 2>/dev/null; then
  # Compiling takes the time, so in several processes where that is possible. The options of
  # pyproject.toml ask for plugins that need not be there.
  "$python" -c 'import xdist' 2>/dev/null && workers="-n 12" || workers=""
  folders="tests/kernels tests/engines"
  "$python" -c 'import av' 2>/dev/null && folders="$folders $(echo tests/runtime/run_triton_*.py)"
  # A file that needs a package which is not here must not take the others with it.
  # shellcheck disable=SC2086  # words or none
  VR_TRT_KERNELS_ON=$on timeout --signal=INT --kill-after=10 "${TESTS_SECONDS:-100}" \
    "$python" -m pytest -q -p no:cacheprovider -c /dev/null --rootdir "$PWD" \
    --import-mode=importlib -o python_files='run_*.py' --continue-on-collection-errors $workers \
    $folders >"$out/tests.log" 2>&1
  tests=$?
fi
echo "kernels' tests: $tests (absent: no pytest is here; 124: the time was up)"

# What fails here is met again, and told, by the benchmark.
case "$on ${MODULES:-vae} " in
  cuda*" vae "*)
    timeout --signal=INT --kill-after=5 "${WARM_SECONDS:-45}" \
      "$python" -m vr_trt.bench.warm >"$out/warm.log" 2>&1
    echo "kernels compiled ahead: $? ($(tail -n 1 "$out/warm.log" | cut -c -200))" ;;
esac

# shellcheck disable=SC2086  # MODULES is a list of words, small one or none
timeout --signal=INT --kill-after=15 "$((${BENCH_SECONDS:-330} + 30))" \
  "$python" -m vr_trt.bench.kernels --out "$out" --seconds "${BENCH_SECONDS:-330}" $small \
  ${MODULES:-} >"$out/bench.txt" 2> >(tee "$out/bench.log" >&2)
bench=$?
sed '$d' "$out/bench.txt"  # the digest is a part of the last line

timeout 20 "$python" -m vr_trt.bench.gpu_parts "$out" tests=$tests bench=$bench
