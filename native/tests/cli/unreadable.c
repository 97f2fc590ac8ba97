/* A disk that fails, for tests on machines where no real one can be made to: preloaded, it lets no byte of the second half
 * of files named *-failing.gguf be read. Pages of a map raise SIGBUS, as those do that the system cannot bring in, unless
 * READS_ONLY is in the environment; reads end with EIO. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char ENDING[] = "-failing.gguf";

/* Where the unreadable half of a file begins, at a page; 0 where all of it can be read. */
static off_t failing_from(int fd) {
    char link[64], path[4096];
    struct stat found;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path);
    ssize_t ending = sizeof ENDING - 1;
    if (fd < 0 || len < ending || memcmp(path + len - ending, ENDING, ending) || fstat(fd, &found))
        return 0;
    return found.st_size / 2 / 4096 * 4096;
}

void *mmap64(void *address, size_t len, int protection, int flags, int fd, off_t offset) {
    char *map = (char *)syscall(SYS_mmap, address, len, protection, flags, fd, offset);
    off_t from = flags & MAP_ANONYMOUS || getenv("READS_ONLY") ? 0 : failing_from(fd);
    if (map != MAP_FAILED && from && offset == 0 && (size_t)from < len) {
        /* Pages behind the end of an empty file. */
        int empty = (int)syscall(SYS_memfd_create, "empty", 0);
        syscall(SYS_mmap, map + from, len - from, protection, flags | MAP_FIXED, empty, 0);
        close(empty);
    }
    return map;
}

void *mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset) {
    return mmap64(address, len, protection, flags, fd, offset);
}

ssize_t pread64(int fd, void *buffer, size_t len, off_t offset) {
    off_t from = failing_from(fd);
    if (from && offset + (off_t)len > from) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, buffer, len, offset);
}

ssize_t pread(int fd, void *buffer, size_t len, off_t offset) {
    return pread64(fd, buffer, len, offset);
}
