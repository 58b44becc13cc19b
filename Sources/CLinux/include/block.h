// Requests to block devices, which are macros that Swift can't import; their header would bring a hundred others.
#pragma once

#include <stdint.h>

extern const unsigned long martlet_BLKGETSIZE64, martlet_BLKSSZGET, martlet_BLKDISCARD;
// Has the kernel see a part of a disk as its partition of that number: `start` and `length` in bytes (BLKPG, linux/blkpg.h).
int martlet_add_partition(int disk, int number, int64_t start, int64_t length);
