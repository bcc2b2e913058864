/* One workload: `run(count)` does the work `count` times and returns a checksum that depends on
 * `count` alone, so that a wrong processor shows. The rate is count * scale / seconds, in `unit`. */
#ifndef WORK_H
#define WORK_H

#include <stddef.h>
#include <stdint.h>

struct work {
    const char *name;
    const char *unit;
    double scale;
    uint64_t (*run)(uint64_t count);
};

#define KEEP(value) __asm__ volatile("" : : "g"(value) : "memory")

extern const struct work integer_works[], text_works[], vector_works[], memory_works[],
    system_works[];

/* Gives up with a message; a workload that can't run must not look like a slow one. */
void die(const char *what);

static inline uint64_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 16;
}

#endif
