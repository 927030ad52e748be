#!/bin/sh
# Builds the fuzzers (clang, address and undefined-behaviour sanitizers) and runs each of them.
#
#   scripts/fuzz.sh [SECONDS] [NAME ...]     60 seconds of every fuzzer unless told otherwise
#
# Prints a line per fuzzer and ends with 1 when one of them found something; the input that shows it
# lies in build-fuzz/findings and is run again with build-fuzz/tests/fuzz/fuzz_NAME FILE.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target fuzzers

build=build-fuzz
mkdir -p $build/findings $build/logs
if [ $# -eq 0 ]; then
  set -- $(ls tests/fuzz/fuzz_*.cpp | sed 's/.*fuzz_\(.*\)\.cpp/\1/')
fi

status=0
for name in "$@"; do
  # What a run learns is kept in the build folder, so that the next one goes on from there.
  mkdir -p $build/corpus/$name
  log=$build/logs/$name.log
  dictionary=tests/fuzz/dictionary/$name.dict
  if [ -e $dictionary ]; then dictionary=-dict=$dictionary; else dictionary=; fi
  if $build/tests/fuzz/fuzz_$name -max_total_time=$seconds -max_len=8192 -timeout=10 \
      -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=$build/findings/$name- $dictionary \
      $build/corpus/$name $(ls -d tests/fuzz/corpus/$name 2>/dev/null) >$log 2>&1; then
    verdict="nothing found"
  else
    verdict="FAILED, see $log"
    status=1
  fi
  runs=$(sed -n 's/.*number_of_executed_units: *//p' $log)
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' $log | tail -1)
  echo "fuzz_$name: ${runs:-?} runs, ${coverage:-?} edges covered: $verdict"
done
exit $status
