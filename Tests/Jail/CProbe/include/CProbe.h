// Attempts to get out of a jail, for the tests of the jails.
#pragma once

// Has a system call that a filter refuses by SECCOMP_RET_TRAP fail with EPERM, and the process go on.
void probe_fail_on_trap(void);
// Tries everything once, and writes the names of what succeeded to standard output, one a line; the last line is `tried N`.
void probe_run(void);
