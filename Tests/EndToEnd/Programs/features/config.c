// The kernel's configuration.
#include "features.h"

#include <stdio.h>
#include <zlib.h>

int compare_config(const char *path) {
    gzFile config = gzopen("/proc/config.gz", "rb");
    FILE *wanted = fopen(path, "r");
    if (!config || !wanted) {
        printf("FAIL config: %s: %s\n", config ? path : "/proc/config.gz", strerror(errno));
        return 1;
    }
    static char text[1 << 20], line[512], find[516];
    text[0] = '\n';
    int length = gzread(config, text + 1, sizeof text - 2), options = 0, wrong = 0;
    text[length < 0 ? 1 : length + 1] = 0;
    while (fgets(line, sizeof line, wanted)) {
        char option[128];
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "# CONFIG_%100s is not set", option) == 1 && strstr(line, " is not set")) {
            // The option is absent, or present as this comment.
            snprintf(find, sizeof find, "\nCONFIG_%s=", option);
            options++;
            if (!strstr(text, find)) continue;
        } else if (!strncmp(line, "CONFIG_", 7)) {
            snprintf(find, sizeof find, "\n%s\n", line);
            options++;
            if (strstr(text, find)) continue;
        } else {
            continue;
        }
        printf("FAIL config: %s\n", line);
        wrong++;
    }
    if (!wrong && options) printf("ok config (%d options)\n", options);
    if (!options) printf("FAIL config: no option in %s\n", path);
    return wrong || !options;
}
