/* A library to preload: the wall clock is CLOCK_OFFSET seconds off, and the offset changes its sign
 * every CLOCK_TURNS readings. The monotonic clock, which timeouts use, stays right. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long offset(void) {
    static unsigned long readings;
    const char *seconds = getenv("CLOCK_OFFSET"), *turns = getenv("CLOCK_TURNS");
    unsigned long every = turns ? strtoul(turns, NULL, 10) : 0;
    long by = seconds ? strtol(seconds, NULL, 10) : 0;
    return every && __atomic_add_fetch(&readings, 1, __ATOMIC_RELAXED) / every % 2 ? -by : by;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset();
    return failed;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *where, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    where->tv_sec = now.tv_sec;
    where->tv_usec = now.tv_nsec / 1000;
    return 0;
}
