#if defined(__x86_64__)
#include "x86_cpuid.h"

#include <cpuid.h>

void martlet_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]) {
    __cpuid_count(leaf, subleaf, registers[0], registers[1], registers[2], registers[3]);
}
#endif
