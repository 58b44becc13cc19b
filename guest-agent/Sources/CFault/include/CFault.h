// Faults on request, linked into the fault-injecting executable only.
#pragma once

// Stops every thread of this process for good.
void martlet_agent_hang(void);
// Dies as a Swift trap does.
void martlet_agent_trap(void);
