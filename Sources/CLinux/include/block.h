// Requests to block devices, which are macros that Swift can't import; their header would bring a hundred others.
#pragma once

extern const unsigned long martlet_BLKGETSIZE64, martlet_BLKSSZGET, martlet_BLKDISCARD;
