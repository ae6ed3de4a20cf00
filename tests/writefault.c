/* LD_PRELOAD: what changes the disk below a path fails, as on a full disk or one that turned read-only.
   tests/writefaults.py builds and steers it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static atomic_long seen;
static long first;
static int kind; /* an errno */

void writefault_set(const char *path, long new_first, int new_kind)
{
    root[0] = 0;
    first = new_first, kind = new_kind;
    atomic_store(&seen, 0);
    strncpy(root, path, sizeof root - 1);
}

long writefault_seen(void) { return atomic_load(&seen); }

/* Whether a change of `path` fails: all do from the `first`-th on. */
static int fails(const char *path)
{
    if (!root[0] || !strstr(path, root) || atomic_fetch_add(&seen, 1) < first)
        return 0;
    errno = kind;
    return 1;
}

static int fails_fd(int descriptor)
{
    char link[64], target[PATH_MAX];
    int before = errno;
    if (!root[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, target, sizeof target - 1);
    errno = before;
    if (length < 0)
        return 0;
    target[length] = 0;
    return fails(target);
}

/* What frees room or needs none works on a full disk. */
static int is_read_only(void) { return kind == EROFS; }

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) \
        next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int descriptor, const void *data, size_t size)
{
    NEXT(write);
    return fails_fd(descriptor) ? -1 : next(descriptor, data, size);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset)
{
    NEXT(pwrite);
    return fails_fd(descriptor) ? -1 : next(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset)
{
    NEXT(pwrite64);
    return fails_fd(descriptor) ? -1 : next(descriptor, data, size, offset);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count)
{
    NEXT(writev);
    return fails_fd(descriptor) ? -1 : next(descriptor, pieces, count);
}

int ftruncate(int descriptor, off_t size)
{
    NEXT(ftruncate);
    return fails_fd(descriptor) ? -1 : next(descriptor, size);
}

int ftruncate64(int descriptor, off64_t size)
{
    NEXT(ftruncate64);
    return fails_fd(descriptor) ? -1 : next(descriptor, size);
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir);
    return fails(path) ? -1 : next(path, mode);
}

int link(const char *old, const char *new)
{
    NEXT(link);
    return fails(new) ? -1 : next(old, new);
}

int rename(const char *old, const char *new)
{
    NEXT(rename);
    return is_read_only() && fails(new) ? -1 : next(old, new);
}

int unlink(const char *path)
{
    NEXT(unlink);
    return is_read_only() && fails(path) ? -1 : next(path);
}

int rmdir(const char *path)
{
    NEXT(rmdir);
    return is_read_only() && fails(path) ? -1 : next(path);
}

#define CREATES(flags) ((flags) & O_CREAT || (is_read_only() && ((flags) & O_ACCMODE) != O_RDONLY))

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        NEXT(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return CREATES(flags) && fails(path) ? -1 : next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
