// The CPUID instruction, which has no expression in Swift.
#pragma once

#include <stdint.h>

// Executes CPUID on this CPU. `registers` gets EAX, EBX, ECX and EDX.
void martlet_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]);
