#!/usr/bin/env bash
# Benchmarks a GPU or TPU in at most eight minutes, most important parts first:
#
#     pip install -e ".[test]" && benchmarks/accelerator.sh [DIRECTORY]
#
# Writes a file for each part as it ends (default: benchmarks/results/accelerator); a part that
# fails or takes too long is reported and skipped. Needs JAX with its plugin; compares with
# PyTorch where that is installed with CUDA. TINY=1 tries it on CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-benchmarks/results/accelerator}")
mkdir -p "$out"
end=$((SECONDS + 480))
tiny=(${TINY:+--tiny --clips-per-device 2 --rounds 2})

# part NAME SECONDS COMMAND...: runs a command within its time and what is left of the eight minutes.
part() {
  local name=$1 limit=$2 left=$((end - SECONDS))
  shift 2
  [ "$left" -gt 10 ] || { echo "== $name: no time left"; return; }
  echo "== $name"
  timeout $((limit < left ? limit : left)) "$@" || echo "== $name FAILED with status $?"
}

device() { part "$1" "$2" python -m benchmarks --what=device --json="$out/$1.json" --part "$1" "${tiny[@]}"; }

timeout 60 python -c "import jax; print(jax.devices(), jax.__version__)" | tee "$out/devices.txt"
device step 120
# Empty, or tests/conftest.py selects the CPU.
part equivalence 120 env JAX_PLATFORMS= JAX_DISABLE_MOST_OPTIMIZATIONS=0 python -m pytest -q -p no:cacheprovider \
  --junitxml="$out/equivalence.xml" tests/equivalence/test_equivalence_stored.py
if python -c "import torch; raise SystemExit(not torch.cuda.is_available())" 2>/dev/null; then
  part train_step 150 python -m benchmarks --what=train_step --json="$out/train_step.json" --settings paper
fi
device epoch 120
device log_mel 60
device step_400_events 120
echo "== done in $SECONDS s: $(ls "$out")"
