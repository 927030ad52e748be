# The two commands of the README, and what they are made of. Every target sets up what it needs.
JOBS ?= $(shell nproc)
# The preset: with CUDA where there is an nvcc of version 13 or later, or as CUDA=1 or CUDA=0 say.
CUDA ?= $(shell nvcc --version 2>/dev/null | grep -qE 'release (1[3-9]|[2-9][0-9])' && echo 1)
PRESET := $(if $(filter 1,$(CUDA)),cuda-release,cpu-release)
TEACHER := models/SmolLM2-135M-Instruct.Q4_1.gguf

.PHONY: help setup build demo test test-speculation test-cuda bench-kernels test-asan fuzz tidy format clean

help:
	@echo "make demo       set up, build, then convert, distill and run the default teacher (main job)"
	@echo "make test       set up, build, run every test"
	@echo "make test-speculation  everything against everything, with speculation and without; hours"
	@echo "make build      set up and build build/mambify, for CUDA too where nvcc is (CUDA=0: never)"
	@echo "make test-cuda  on a machine with a GPU: its kernels, training, and that speculation"
	@echo "                changes no bit"
	@echo "make bench-kernels  on a machine with a GPU: its kernels, alone"
	@echo "make test-asan  the tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make fuzz       ten minutes of fuzzing for every parser (SECONDS_EACH=600)"
	@echo "make tidy       clang-format and clang-tidy over the sources"

setup:
	scripts/setup.sh

build: setup
	cmake --preset $(PRESET)
	cmake --build --preset $(PRESET) -j $(JOBS)

$(TEACHER): | setup
	scripts/fetch_teacher.sh $@

demo: build $(TEACHER)
	build/mambify demo --teacher $(TEACHER) --out runs/demo

test-cuda: build
	build/tests/cuda/test_cuda
	build/tests/ops/test_ops --gtest_filter='*CudaOps*'
	build/tests/decode/test_decode --gtest_filter='*_cuda*'
	build/tests/distill/test_distill --gtest_filter='*/cuda'
	build/tests/distill/test_kill_resume --gtest_filter='*/cuda'

bench-kernels: build
	cmake --build --preset $(PRESET) --target bench_kernels -j $(JOBS)
	build/bench/pass_linear_bench
	build/bench/multi_step_bench
	build/bench/pass_attention_bench
	build/bench/training_kernels_bench
	build/bench/ssd_bench

test: build $(TEACHER)
	scripts/run_tests.sh build $(TEACHER)

# MODELS: a pattern of the models and formats to run, such as 'mamba2_*'. What has run is not run again
# by the next call.
MODELS ?= *
test-speculation: build
	MAMBIFY_WHOLE_PRODUCT=1 scripts/run_in_parts.py build/tests/decode/test_decode --jobs $(JOBS) \
	  --filter '*Speculation.*/$(MODELS)' --results build/whole-product.tsv

test-asan: setup $(TEACHER)
	cmake --preset cpu-asan
	cmake --build --preset cpu-asan -j $(JOBS)
	scripts/run_tests.sh build-asan

SECONDS_EACH ?= 600
fuzz: setup
	scripts/fuzz.sh $(SECONDS_EACH)

tidy: build
	scripts/tidy.sh

format:
	git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	rm -rf build build-asan build-fuzz
