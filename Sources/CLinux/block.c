#include "block.h"

#include <linux/blkpg.h>
#include <linux/fs.h>
#include <stddef.h>
#include <sys/ioctl.h>

const unsigned long martlet_BLKGETSIZE64 = BLKGETSIZE64, martlet_BLKSSZGET = BLKSSZGET, martlet_BLKDISCARD = BLKDISCARD;

int martlet_add_partition(int disk, int number, int64_t start, int64_t length) {
    struct blkpg_partition partition = {.start = start, .length = length, .pno = number};
    struct blkpg_ioctl_arg argument = {.op = BLKPG_ADD_PARTITION, .datalen = sizeof partition, .data = &partition};
    return ioctl(disk, BLKPG, &argument);
}
