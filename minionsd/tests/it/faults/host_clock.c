/* Simulates a change of the host's clock: adds the number of seconds in a file to CLOCK_REALTIME.
 * Loaded into minionsd (LD_PRELOAD) by the fault matrix. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    const char *path = getenv("HOST_CLOCK_OFFSET");
    if (result != 0 || clock != CLOCK_REALTIME || path == NULL)
        return result;
    char text[32] = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0)
            now->tv_sec += atol(text);
        close(file);
    }
    return result;
}
