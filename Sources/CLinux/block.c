#include "block.h"

#include <linux/fs.h>
#include <stddef.h>

const unsigned long martlet_BLKGETSIZE64 = BLKGETSIZE64, martlet_BLKSSZGET = BLKSSZGET, martlet_BLKDISCARD = BLKDISCARD;
