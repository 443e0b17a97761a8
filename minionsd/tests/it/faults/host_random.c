/* Simulates a host whose kernel returns known random numbers: every byte is 'Z'.
 * Loaded into minionsd (LD_PRELOAD) by the tests of generations. */
#include <string.h>
#include <sys/types.h>

ssize_t getrandom(void *buffer, size_t length, unsigned int flags) {
    (void)flags;
    if (length > 0)
        memset(buffer, 'Z', length);
    return (ssize_t)length;
}
