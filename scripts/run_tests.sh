#!/usr/bin/env bash
# Runs the tests of a build folder and ends with "N passed, N failed":
# scripts/run_tests.sh BUILD [TEACHER.gguf]. Tests on the real teacher are skipped without it.
set -uo pipefail
cd "$(dirname "$0")/.."
build=$1
if (($# > 1)); then MAMBIFY_TEACHER=$(realpath "$2") && export MAMBIFY_TEACHER; fi
# LibTorch keeps some memory to its end, which is no leak of ours to find.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
ctest --test-dir "$build" --output-on-failure --no-tests=error 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
failed=$(sed -nE 's/.* tests passed, ([0-9]+) tests? failed out of ([0-9]+)/\1/p' "$log")
total=$(sed -nE 's/.* tests passed, ([0-9]+) tests? failed out of ([0-9]+)/\2/p' "$log")
echo "$((${total:-0} - ${failed:-0})) passed, ${failed:-1} failed"
exit "$status"
