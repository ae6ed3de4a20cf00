/* LD_PRELOAD: reads, opens or looks (stat, listings of folders) under a path fail, or reads come short. tests/readfaults.py builds and steers it.

READFAULT_PATH, _FIRST, _COUNT, _KIND set it from outside; a process may call readfault_set() and readfault_seen(). */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char path[PATH_MAX];
static atomic_long seen;
static long first, count;
static int kind; /* an errno; 0: half of the bytes; -1: none, as at the end of the file */
static int of; /* which calls are counted, and fail: READS, OPENS or LOOKS */
enum { READS, OPENS, LOOKS };

void readfault_set(const char *new_path, long new_first, long new_count, int new_kind)
{
    path[0] = 0;
    first = new_first, count = new_count, kind = new_kind;
    of = READS;
    atomic_store(&seen, 0);
    strncpy(path, new_path, sizeof path - 1);
}

void readfault_set_opens(const char *new_path, long new_first, long new_count, int new_kind)
{
    readfault_set(new_path, new_first, new_count, new_kind);
    of = OPENS;
}

void readfault_set_looks(const char *new_path, long new_first, long new_count, int new_kind)
{
    readfault_set(new_path, new_first, new_count, new_kind);
    of = LOOKS;
}

long readfault_seen(void) { return atomic_load(&seen); }

__attribute__((constructor)) static void start(void)
{
    const char *name = getenv("READFAULT_PATH"), *from = getenv("READFAULT_FIRST");
    const char *many = getenv("READFAULT_COUNT"), *what = getenv("READFAULT_KIND");
    if (name && from && many && what)
        readfault_set(name, atol(from), atol(many), atoi(what));
}

/* How many bytes of `size` may be read, or -1 with errno. */
static ssize_t allowed(int descriptor, size_t size)
{
    char link[64], target[PATH_MAX];
    int before = errno;
    if (of != READS || !path[0] || !size)
        return (ssize_t)size;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, target, sizeof target - 1);
    errno = before;
    if (length < 0)
        return (ssize_t)size;
    target[length] = 0;
    if (!strstr(target, path))
        return (ssize_t)size;
    long number = atomic_fetch_add(&seen, 1);
    if (number < first || number >= first + count)
        return (ssize_t)size;
    if (kind > 0) {
        errno = kind;
        return -1;
    }
    return kind ? 0 : (ssize_t)((size + 1) / 2);
}

#define NEXT(type, name) \
    static type next; \
    if (!next) \
        next = (type)dlsym(RTLD_NEXT, name)

typedef ssize_t (*read_call)(int, void *, size_t);
typedef ssize_t (*pread_call)(int, void *, size_t, off_t);

ssize_t read(int descriptor, void *buffer, size_t size)
{
    NEXT(read_call, "read");
    ssize_t most = allowed(descriptor, size);
    return most <= 0 ? most : next(descriptor, buffer, (size_t)most);
}

ssize_t pread(int descriptor, void *buffer, size_t size, off_t offset)
{
    NEXT(pread_call, "pread");
    ssize_t most = allowed(descriptor, size);
    return most <= 0 ? most : next(descriptor, buffer, (size_t)most, offset);
}

ssize_t pread64(int descriptor, void *buffer, size_t size, off_t offset)
{
    NEXT(pread_call, "pread64");
    ssize_t most = allowed(descriptor, size);
    return most <= 0 ? most : next(descriptor, buffer, (size_t)most, offset);
}

/* Whether this call, one of `calls`, fails with errno. */
static int fails(int calls, const char *name)
{
    if (of != calls || !path[0] || !strstr(name, path))
        return 0;
    long number = atomic_fetch_add(&seen, 1);
    if (number < first || number >= first + count)
        return 0;
    errno = kind;
    return 1;
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

typedef int (*open_call)(const char *, int, mode_t);

int open(const char *name, int flags, ...)
{
    MODE
    NEXT(open_call, "open");
    return (flags & O_ACCMODE) == O_RDONLY && fails(OPENS, name) ? -1 : next(name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
    MODE
    NEXT(open_call, "open64");
    return (flags & O_ACCMODE) == O_RDONLY && fails(OPENS, name) ? -1 : next(name, flags, mode);
}

#define LOOK(name, type) \
    int name(const char *at, type *found) \
    { \
        typedef int (*name##_call)(const char *, type *); \
        NEXT(name##_call, #name); \
        return fails(LOOKS, at) ? -1 : next(at, found); \
    }
#define LOOK_AT(name, type) \
    int name(int folder, const char *at, type *found, int flags) \
    { \
        typedef int (*name##_call)(int, const char *, type *, int); \
        NEXT(name##_call, #name); \
        return fails(LOOKS, at) ? -1 : next(folder, at, found, flags); \
    }

LOOK(stat, struct stat)
LOOK(lstat, struct stat)
LOOK(stat64, struct stat64)
LOOK(lstat64, struct stat64)
LOOK_AT(fstatat, struct stat)
LOOK_AT(fstatat64, struct stat64)

DIR *opendir(const char *at)
{
    typedef DIR *(*opendir_call)(const char *);
    NEXT(opendir_call, "opendir");
    return fails(LOOKS, at) ? NULL : next(at);
}
