// Instruction sets chosen at run time, and the pragmas that the CPU kernels vectorise with.
#pragma once

// Compiles a function once per instruction set and picks one when the program starts: AVX-512,
// AVX2 with FMA, or plain. Loops to be vectorised must stand in such a function: the body of an
// OpenMP parallel region is outlined and not cloned, so a region calls cloned functions. What these
// call must be MAMBIFY_INLINE, or it is compiled for the plain set only.
//
// MAMBIFY_AVX512, MAMBIFY_AVX512_VNNI (with products of bytes) and MAMBIFY_AVX2 are for functions
// that are written once per set, and are chosen by hand; they are undefined where there are no such
// sets.
#if defined(__x86_64__) && defined(__clang__)
// Clang does not dispatch on the x86-64-vN levels, and GCC inlines no function for any machine into
// one for a machine by name.
#define MAMBIFY_CLONES \
  __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#define MAMBIFY_AVX512 __attribute__((target("arch=skylake-avx512")))
#define MAMBIFY_AVX512_VNNI __attribute__((target("arch=cascadelake")))
#define MAMBIFY_AVX2 __attribute__((target("arch=haswell")))
#elif defined(__x86_64__)
#define MAMBIFY_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define MAMBIFY_AVX512 __attribute__((target("arch=x86-64-v4")))
#define MAMBIFY_AVX512_VNNI __attribute__((target("arch=x86-64-v4,avx512vnni")))
#define MAMBIFY_AVX2 __attribute__((target("arch=x86-64-v3")))
#else
#define MAMBIFY_CLONES
#endif

#define MAMBIFY_INLINE inline __attribute__((always_inline))

#if defined(MAMBIFY_AVX512)
namespace mambify::kernels {

// Whether this processor has the sets above.
inline bool has_avx512() {
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
inline bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace mambify::kernels
#endif
