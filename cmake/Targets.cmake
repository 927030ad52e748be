# mambify_library(NAME [TORCH] SOURCES ... [DEPENDS ...])
#
# One static library per folder of src/. DEPENDS names folders below it only (docs/architecture.md
# has the order). TORCH adds LibTorch and the shared precompiled ATen header.
function(mambify_library name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(mambify_${name} STATIC ${ARG_SOURCES})
  target_include_directories(mambify_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  list(TRANSFORM ARG_DEPENDS REPLACE "^(core|html|io|text|kernels|ops|model|data|convert|decode|eval|distill)$"
                                     "mambify_\\1")
  target_link_libraries(mambify_${name} PUBLIC ${ARG_DEPENDS})
  if(ARG_TORCH)
    mambify_use_torch(mambify_${name})
  endif()
endfunction()

# The precompiled header is compiled once, in mambify_ops, and reused by every other target.
function(mambify_use_torch target)
  target_link_libraries(${target} PUBLIC LibTorch OpenMP::OpenMP_CXX)
  # -fPIC after CMake's -fPIE: programs can reuse only a header compiled as they are.
  target_compile_options(${target} PRIVATE ${MAMBIFY_PCH_OPTIONS} -fPIC)
  if(target STREQUAL "mambify_ops")
    target_precompile_headers(${target} PRIVATE <ATen/ATen.h> <fmt/format.h>)
  else()
    target_precompile_headers(${target} REUSE_FROM mambify_ops)
  endif()
endfunction()

# mambify_test(NAME [TORCH] SOURCES ... DEPENDS ...): one GoogleTest program for one folder.
function(mambify_test name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(test_${name} ${ARG_SOURCES})
  list(TRANSFORM ARG_DEPENDS REPLACE "^(core|html|io|text|kernels|ops|model|data|convert|decode|eval|distill)$"
                                     "mambify_\\1")
  target_link_libraries(test_${name} PRIVATE ${ARG_DEPENDS} mambify_testing GTest::gtest_main)
  target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  if(ARG_TORCH)
    target_sources(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/torch_environment.cpp)
    target_link_libraries(test_${name} PRIVATE mambify_ops)
    mambify_use_torch(test_${name})
  endif()
  gtest_discover_tests(test_${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT 1800)
endfunction()
