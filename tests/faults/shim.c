/* A library to preload: makes one call to the operating system fail, or stop the process, at will.

   `arm(calls, part, first, last, what)` arms it: from the first to the last call (counted from 1) of one of
   `calls` ("write fsync") on a path that contains `part` (ends with it, where `part` ends with $), `what` happens: a positive number is the errno that
   the call fails with, a negative one the signal that the process sends itself before the call.
   `matched()` tells how many calls have matched since.

   Programs that are started by another one are armed by their environment: SHIM_FAULT is
   "calls|part|first|last|what", and of several such programs one alone is struck where SHIM_ONCE names a file that is
   not there yet. SHIM_CLOCK names a file of eight bytes, the seconds (int64) by which the clock that people
   set is wrong; it may be changed at any time. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char calls[256], part[256];
static long first, last, count;
static int what;

void arm(const char *which, const char *where, long from, long to, int outcome) {
    snprintf(calls, sizeof calls, " %s ", which);
    snprintf(part, sizeof part, "%s", where);
    first = from, last = to, what = outcome, count = 0;
}

static const char *once;
static const volatile int64_t *wrong; /* seconds, of the clock */

__attribute__((constructor)) static void from_environment(void) {
    char which[256], where[256];
    long from, to;
    int outcome;
    const char *fault = getenv("SHIM_FAULT"), *clock = getenv("SHIM_CLOCK");
    once = getenv("SHIM_ONCE");
    if (fault && sscanf(fault, "%255[^|]|%255[^|]|%ld|%ld|%d", which, where, &from, &to, &outcome) == 5)
        arm(which, where, from, to, outcome);
    int file = clock ? open(clock, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, sizeof *wrong, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) wrong = map;
    close(file);
}

long matched(void) { return count; }

static int fits(const char *path) {
    size_t length = strlen(part), whole = strlen(path);
    if (!length || part[length - 1] != '$') return strstr(path, part) != NULL;
    return whole + 1 >= length && !strncmp(path + whole + 1 - length, part, length - 1);
}

static int strikes(const char *call, const char *path) {
    char word[32];
    if (!first) return 0;
    snprintf(word, sizeof word, " %s ", call);
    if (!strstr(calls, word) || !path || !fits(path)) return 0;
    long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (number < first || number > last) return 0;
    if (once) {
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
        int mark = real(once, O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (mark < 0) return 0;
        close(mark);
    }
    if (what < 0) {
        kill(getpid(), -what);
        return 0;
    }
    errno = what;
    return 1;
}

static int strikes_file(const char *call, int file) {
    int before = errno;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return strikes(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Opening to write and opening to read are told apart: disks fill, descriptors run out. */
static const char *opening(int flags) { return (flags & O_ACCMODE) == O_RDONLY ? "open" : "create"; }

#define OPEN(name)                                            \
    int name(const char *path, int flags, ...) {              \
        va_list more;                                         \
        va_start(more, flags);                                \
        int mode = va_arg(more, int);                         \
        va_end(more);                                         \
        if (strikes(opening(flags), path)) return -1;         \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

ssize_t read(int file, void *data, size_t size) {
    return strikes_file("read", file) ? -1 : REAL(read)(file, data, size);
}
ssize_t write(int file, const void *data, size_t size) {
    return strikes_file("write", file) ? -1 : REAL(write)(file, data, size);
}
int fsync(int file) { return strikes_file("fsync", file) ? -1 : REAL(fsync)(file); }
int flock(int file, int operation) { return strikes_file("flock", file) ? -1 : REAL(flock)(file, operation); }
int ftruncate(int file, off_t size) { return strikes_file("truncate", file) ? -1 : REAL(ftruncate)(file, size); }
int rename(const char *from, const char *to) { return strikes("rename", to) ? -1 : REAL(rename)(from, to); }
int link(const char *from, const char *to) { return strikes("link", to) ? -1 : REAL(link)(from, to); }
int unlink(const char *path) { return strikes("unlink", path) ? -1 : REAL(unlink)(path); }
int mkdir(const char *path, mode_t mode) { return strikes("mkdir", path) ? -1 : REAL(mkdir)(path, mode); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(clock, now);
    if (!outcome && wrong && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *wrong;
    return outcome;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int outcome = REAL(gettimeofday)(now, zone);
    if (!outcome && wrong) now->tv_sec += *wrong;
    return outcome;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
