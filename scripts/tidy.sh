#!/usr/bin/env bash
# clang-format (nothing may change) and clang-tidy over the sources, with the release build's flags:
# scripts/tidy.sh [FILE ...]
set -euo pipefail
cd "$(dirname "$0")/.."
if (($#)); then files=("$@"); else mapfile -t files < <(git ls-files 'src/*.cpp' 'apps/*.cpp'); fi
git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs clang-format --dry-run --Werror
# clang does not read GCC's precompiled headers, nor a few of its options.
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT
sed -E -e 's/ -include [^ ]*cmake_pch[^ ]*//g; s/ -fpch-preprocess//g; s/ -Winvalid-pch//g' \
  -e 's/ --param vect-max-peeling-for-alignment=0//g' build/compile_commands.json \
  > "$commands/compile_commands.json"
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 4 \
  clang-tidy --quiet -p "$commands" --extra-arg=-Wno-unknown-warning-option
