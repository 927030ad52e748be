#!/usr/bin/env bash
# Builds the fuzzers (clang, address and undefined-behaviour sanitizers) and runs each of them:
# scripts/fuzz.sh [SECONDS_EACH] [NAME ...]. Prints a line per fuzzer and ends with 1 when one of
# them found something; the input that shows it lies in build-fuzz/findings, and
# build-fuzz/tests/fuzz/fuzz_NAME FILE runs it again.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
names=("${@:2}")
if ((${#names[@]} == 0)); then
  mapfile -t names < <(basename -s .cpp -a tests/fuzz/fuzz_*.cpp | sed 's/^fuzz_//')
fi

cmake --preset fuzz > /dev/null
cmake --build --preset fuzz --target fuzzers

build=build-fuzz
mkdir -p $build/findings $build/logs
status=0
for name in "${names[@]}"; do
  # What a run learns is kept in the build folder, so that the next one goes on from there.
  folders=("$build/corpus/$name")
  mkdir -p "${folders[0]}"
  if [[ -d tests/fuzz/corpus/$name ]]; then folders+=("tests/fuzz/corpus/$name"); fi
  options=("-max_total_time=$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048
           -print_final_stats=1 "-artifact_prefix=$build/findings/$name-")
  if [[ -e tests/fuzz/dictionary/$name.dict ]]; then
    options+=("-dict=tests/fuzz/dictionary/$name.dict")
  fi
  log=$build/logs/$name.log
  verdict="nothing found"
  if ! "$build/tests/fuzz/fuzz_$name" "${options[@]}" "${folders[@]}" &> "$log"; then
    verdict="FAILED, see $log"
    status=1
  fi
  runs=$(sed -n 's/.*number_of_executed_units: *//p' "$log")
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  echo "fuzz_$name: ${runs:-?} runs, ${coverage:-?} edges covered: $verdict"
done
exit $status
