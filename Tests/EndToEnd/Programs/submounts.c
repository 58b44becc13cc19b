// Checks that (st_dev, st_ino) tells files apart.
//
//   submounts FILE...
//
// Each argument is a file or directory of its own. Prints the numbers of each; exits with 1 if two arguments have the
// same device and inode number, before or after someone goes into them, or if a directory's entry has another type
// than the file.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int faults;

// Compares the numbers of all arguments as `look` sees them.
static void compare(int count, char **paths, const char *how, int flags) {
    static struct stat seen[256];
    for (int i = 0; i < count; i++) {
        if (fstatat(AT_FDCWD, paths[i], &seen[i], flags) < 0) {
            perror(paths[i]);
            faults++;
            continue;
        }
        printf("%s %s device %u:%u inode %llu\n", how, paths[i], major(seen[i].st_dev), minor(seen[i].st_dev),
               (unsigned long long)seen[i].st_ino);
        for (int j = 0; j < i; j++) {
            if (seen[j].st_dev != seen[i].st_dev || seen[j].st_ino != seen[i].st_ino) continue;
            printf("the same: %s and %s\n", paths[j], paths[i]);
            faults++;
        }
    }
}

static void check_types(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct stat status;
        if (entry->d_type == DT_UNKNOWN || fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) continue;
        if (IFTODT(status.st_mode) == entry->d_type) continue;
        printf("%s/%s: type %d by readdir, %d by stat\n", path, entry->d_name, entry->d_type, IFTODT(status.st_mode));
        faults++;
    }
    closedir(directory);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 257) {
        fprintf(stderr, "usage: submounts FILE...\n");
        return 2;
    }
    // lstat does not go into a submount that nobody has entered yet, stat does.
    compare(argc - 1, argv + 1, "lstat", AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
    compare(argc - 1, argv + 1, "stat", 0);
    for (int i = 1; i < argc; i++) check_types(argv[i]);
    compare(argc - 1, argv + 1, "lstat", AT_SYMLINK_NOFOLLOW);
    if (!faults) printf("ok %d files\n", argc - 1);
    return faults != 0;
}
