# Imports LibTorch from the `torch` wheel as the target LibTorch.
#
# The wheel's own find_package(Torch) stops where there is no CUDA toolkit, and the CPU program
# needs two of its libraries only, so they are imported by path. The wheel of PyPI links its CPU
# library against CUDA's runtime, which the nvidia-* wheels beside it carry.
set(MAMBIFY_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH
    "Python whose site-packages hold the torch wheel")

execute_process(
  COMMAND ${MAMBIFY_PYTHON} -c "import sysconfig; print(sysconfig.get_paths()['purelib'])"
  OUTPUT_VARIABLE MAMBIFY_SITE_PACKAGES OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE python_result)
set(torch_dir "${MAMBIFY_SITE_PACKAGES}/torch")
if(NOT python_result EQUAL 0 OR NOT EXISTS "${torch_dir}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No torch wheel beside ${MAMBIFY_PYTHON}. Run scripts/setup.sh, or pass "
                      "-DMAMBIFY_PYTHON=/path/to/python of an environment that has torch 2.11.0.")
endif()
file(GLOB nvidia_lib_dirs "${MAMBIFY_SITE_PACKAGES}/nvidia/*/lib")

add_library(LibTorch INTERFACE)
# After the system's own folders: the wheel brings another version of {fmt}, which would hide the one
# that is linked and that spdlog was built with.
target_compile_options(LibTorch INTERFACE "SHELL:-idirafter ${torch_dir}/include")
target_link_libraries(LibTorch INTERFACE "${torch_dir}/lib/libtorch_cpu.so"
                                         "${torch_dir}/lib/libc10.so")
foreach(dir "${torch_dir}/lib" ${nvidia_lib_dirs})
  # DT_RPATH rather than DT_RUNPATH: libtorch_cpu finds its own needs through the program's.
  target_link_options(LibTorch INTERFACE "LINKER:-rpath,${dir}" "LINKER:-rpath-link,${dir}")
endforeach()
target_link_options(LibTorch INTERFACE "LINKER:--disable-new-dtags")
