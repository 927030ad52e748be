#!/usr/bin/env bash
# Installs what mambify is built with on Debian 12 or Ubuntu 24.04: compilers and libraries from the
# distribution, LibTorch from the torch wheel in .venv, with its GPU libraries where there is a GPU.
# Does nothing that is already done.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  g++ cmake ninja-build ccache pkg-config python3-venv ca-certificates
  libcli11-dev libfmt-dev libspdlog-dev nlohmann-json3-dev libtomlplusplus-dev libpcre2-dev
  libgtest-dev
)
torch_version=2.11.0

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "Installing ${missing[*]}" >&2
  as_root=()
  if ((EUID != 0)); then as_root=(sudo); fi
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    "${missing[@]}"
fi

# A virtual environment that lost its interpreter is made anew.
.venv/bin/python -c '' 2>/dev/null || { rm -rf .venv && python3 -m venv .venv; }
has_torch() {
  [[ "$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null)" == "$torch_version"* ]]
}
has_library() { compgen -G ".venv/lib/python3*/site-packages/nvidia/*/lib/$1" >/dev/null; }
pip=(.venv/bin/python -m pip install -q --disable-pip-version-check)
if [[ -e /dev/nvidiactl ]]; then
  # Training and evaluating on a GPU: cuBLAS, cuDNN and what else LibTorch's CUDA library needs.
  if ! has_torch || ! has_library 'libcublas.so*' || ! has_library 'libcudnn.so*'; then
    echo "Installing LibTorch $torch_version with its GPU libraries (7 GB on disk)" >&2
    "${pip[@]}" "torch==$torch_version"
  fi
elif ! has_torch || ! has_library 'libcudart.so*'; then
  echo "Installing LibTorch $torch_version (1.3 GB on disk)" >&2
  # The CPU library is linked against CUDA's runtime and profiler interface, and nothing else of it.
  "${pip[@]}" --no-deps "torch==$torch_version" nvidia-cuda-runtime nvidia-cuda-cupti
fi
