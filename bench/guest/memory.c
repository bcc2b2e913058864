/* Memory: bandwidth, latency, and pages that are not there yet. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "work.h"

enum { COPY = 8 << 20, WORDS = 4 << 20, PAGE = 4096, PAGES = 1024 };

static void *map(size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        die("mmap");
    /* Huge pages would make hosts differ in more than the engine. */
    madvise(at, size, MADV_NOHUGEPAGE);
    return at;
}

static uint64_t copy(uint64_t count) {
    static uint8_t *from, *to;
    if (!from) {
        from = map(COPY);
        to = map(COPY);
        memset(from, 1, COPY);
        memset(to, 2, COPY);
    }
    for (uint64_t n = 0; n < count; n++) {
        memcpy(to, from, COPY);
        KEEP(to);
    }
    return to[COPY / 2];
}

/* One cycle through 32 MiB in random order: each load waits for the last. */
static uint64_t chase(uint64_t count) {
    static uint64_t *next;
    if (!next) {
        next = map(WORDS * sizeof *next);
        uint64_t seed = 17;
        for (uint64_t i = 0; i < WORDS; i++)
            next[i] = i;
        for (uint64_t i = WORDS - 1; i > 0; i--) {
            uint64_t j = next_random(&seed) % i, other = next[j];
            next[j] = next[i];
            next[i] = other;
        }
    }
    uint64_t at = 0;
    for (uint64_t i = 0; i < count * 1000; i++)
        at = next[at];
    return at;
}

static uint64_t faults(uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t n = 0; n < count; n++) {
        uint8_t *pages = map(PAGES * PAGE);
        for (int i = 0; i < PAGES; i++)
            sum += ++pages[i * PAGE];
        munmap(pages, PAGES * PAGE);
    }
    return sum;
}

const struct work memory_works[] = {
    {"copy", "MiB/s", COPY / 1048576.0, copy},
    {"chase", "loads/s", 1000, chase},
    {"faults", "faults/s", PAGES, faults},
    {NULL, NULL, 0, NULL},
};
