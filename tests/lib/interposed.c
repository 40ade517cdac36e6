/* Stands between a process and its filesystem (LD_PRELOAD): ends the process at a chosen call, takes its locks away, or
   writes down the order of what it does.

   Only calls below the folder given to `interposed_arm` count. Calls are counted over all threads, which strace's own
   injection cannot do: it counts for each thread alone, and so never reaches many of them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum kind { CREATE, WRITE, SYNC, RENAME, SYMLINK, UNLINK, TRUNCATE, ALLOCATE, MKDIR, RMDIR, CHMOD, KINDS };

atomic_long interposed_counts[KINDS];
static char below[PATH_MAX];
static int chosen = -1;
static long chosen_at;
static int torn_writes;
static int no_locks;
static _Thread_local int no_syncs;
static int events = -1;

/* End the process at the `at`-th call of `kind` (none: -1); with `torn`, a write is half done first. */
void interposed_arm(const char *folder, int kind, long at, int torn) {
    memset(interposed_counts, 0, sizeof interposed_counts);
    chosen = kind, chosen_at = at, torn_writes = torn;
    snprintf(below, sizeof below, "%s", folder);
}

/* From now on every lock is granted and holds nobody off, as on some network filesystems. */
void interposed_no_locks(void) { no_locks = 1; }

/* From now on what this thread forces to the disk is not forced, and it is told that it was. */
void interposed_no_syncs(int on) { no_syncs = on; }

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int is_below(const char *path) {
    size_t length = strlen(below);
    return length && strncmp(path, below, length) == 0;
}

static int handle_is_below(int handle) {
    char link[64], path[PATH_MAX];
    if (!below[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int at_is_below(int folder, const char *path) {
    return path[0] == '/' || folder == AT_FDCWD ? is_below(path) : handle_is_below(folder);
}

/* Whether this call is the one; the caller may do a part of it before it dies. */
static int is_the_one(enum kind kind) {
    return atomic_fetch_add(&interposed_counts[kind], 1) + 1 == chosen_at && (int)kind == chosen;
}

static void reach(enum kind kind, int counts) {
    if (counts && is_the_one(kind)) die();
}

/* Write down what happens below the folder from now on, one line for each: "<" when a call begins, ">" when it ended well,
   its kind, its path or paths, divided by tabs. Their order is that of all threads together. */
void interposed_record(const char *path) {
    events = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void note(const char *when, const char *kind, const char *path, const char *to) {
    char line[2 * PATH_MAX + 32];
    int kept = errno, length = snprintf(line, sizeof line, "%s\t%s\t%s\t%s\n", when, kind, path, to);
    if (REAL(write)(events, line, length) != length) abort();
    errno = kept;
}

static void note_handle(const char *when, const char *kind, int handle) {
    char link[64], path[PATH_MAX];
    if (events < 0 || !handle_is_below(handle)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    note(when, kind, path, "");
}

static void note_path(const char *when, const char *kind, const char *path, const char *to) {
    if (events >= 0 && is_below(to[0] ? to : path)) note(when, kind, path, to);
}

#define OPEN_MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) {
    OPEN_MODE(flags)
    reach(CREATE, (flags & O_CREAT) && is_below(path));
    return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    OPEN_MODE(flags)
    reach(CREATE, (flags & O_CREAT) && is_below(path));
    return REAL(open64)(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    OPEN_MODE(flags)
    reach(CREATE, (flags & O_CREAT) && at_is_below(folder, path));
    return REAL(openat)(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    OPEN_MODE(flags)
    reach(CREATE, (flags & O_CREAT) && at_is_below(folder, path));
    return REAL(openat64)(folder, path, flags, mode);
}
ssize_t write(int handle, const void *data, size_t length) {
    if (handle_is_below(handle) && is_the_one(WRITE)) {
        if (torn_writes) REAL(write)(handle, data, length / 2);
        die();
    }
    ssize_t done = REAL(write)(handle, data, length);
    note_handle(">", "write", handle);
    return done;
}
ssize_t pwrite(int handle, const void *data, size_t length, off_t offset) {
    if (handle_is_below(handle) && is_the_one(WRITE)) {
        if (torn_writes) REAL(pwrite)(handle, data, length / 8192 * 4096, offset);
        die();
    }
    ssize_t done = REAL(pwrite)(handle, data, length, offset);
    note_handle(">", "write", handle);
    return done;
}
ssize_t pwrite64(int handle, const void *data, size_t length, off64_t offset) { return pwrite(handle, data, length, offset); }
static int sync_with(int (*sync)(int), int handle) {
    reach(SYNC, handle_is_below(handle));
    if (no_syncs) return 0;
    note_handle("<", "sync", handle);
    int result = sync(handle);
    if (!result) note_handle(">", "sync", handle);
    return result;
}
int fsync(int handle) { return sync_with(REAL(fsync), handle); }
int fdatasync(int handle) { return sync_with(REAL(fdatasync), handle); }
int rename(const char *from, const char *to) {
    reach(RENAME, is_below(to));
    note_path("<", "rename", from, to);
    int result = REAL(rename)(from, to);
    if (!result) note_path(">", "rename", from, to);
    return result;
}
int renameat(int at, const char *from, int there, const char *to) {
    if (at == AT_FDCWD && there == AT_FDCWD) return rename(from, to);
    reach(RENAME, at_is_below(there, to));
    return REAL(renameat)(at, from, there, to);
}
int symlink(const char *target, const char *path) { reach(SYMLINK, is_below(path)); return REAL(symlink)(target, path); }
int symlinkat(const char *target, int folder, const char *path) {
    reach(SYMLINK, at_is_below(folder, path));
    return REAL(symlinkat)(target, folder, path);
}
int unlink(const char *path) {
    reach(UNLINK, is_below(path));
    note_path("<", "unlink", path, "");
    return REAL(unlink)(path);
}
int unlinkat(int folder, const char *path, int flags) {
    reach(flags & AT_REMOVEDIR ? RMDIR : UNLINK, at_is_below(folder, path));
    return REAL(unlinkat)(folder, path, flags);
}
int rmdir(const char *path) { reach(RMDIR, is_below(path)); return REAL(rmdir)(path); }
int ftruncate(int handle, off_t length) {
    reach(TRUNCATE, handle_is_below(handle));
    int result = REAL(ftruncate)(handle, length);
    note_handle(">", "write", handle);
    return result;
}
int ftruncate64(int handle, off64_t length) { return ftruncate(handle, length); }
int fallocate(int handle, int mode, off_t offset, off_t length) {
    reach(ALLOCATE, handle_is_below(handle));
    return REAL(fallocate)(handle, mode, offset, length);
}
int mkdir(const char *path, mode_t mode) {
    reach(MKDIR, is_below(path));
    int result = REAL(mkdir)(path, mode);
    if (!result) note_path(">", "mkdir", path, "");
    return result;
}
int mkdirat(int folder, const char *path, mode_t mode) {
    reach(MKDIR, at_is_below(folder, path));
    return REAL(mkdirat)(folder, path, mode);
}
int chmod(const char *path, mode_t mode) { reach(CHMOD, is_below(path)); return REAL(chmod)(path, mode); }
int fchmod(int handle, mode_t mode) { reach(CHMOD, handle_is_below(handle)); return REAL(fchmod)(handle, mode); }
int fchmodat(int folder, const char *path, mode_t mode, int flags) {
    reach(CHMOD, at_is_below(folder, path));
    return REAL(fchmodat)(folder, path, mode, flags);
}
int flock(int handle, int operation) { return no_locks ? 0 : REAL(flock)(handle, operation); }
