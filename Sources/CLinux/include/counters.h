// Counters of the kernel's events, for measurements.
#pragma once

#include <stdint.h>

// Counts a tracepoint on one CPU of the host, in whatever process it is passed; starts at once (perf_event_open(2)).
int martlet_count_tracepoint(uint64_t id, int cpu);
