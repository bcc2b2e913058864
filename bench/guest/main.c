/* work NAME...        measures workloads, one line each: NAME RATE UNIT
 * work --list         names and units
 * work --check        checksums of a fixed amount of each workload: NAME CHECKSUM
 * work --seconds S    least time of a measurement (default 0.3) */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

static const struct work *const groups[] = {integer_works, text_works, vector_works, memory_works,
                                            system_works};
static const uint64_t check_count = 3;

void die(const char *what) {
    fprintf(stderr, "work: %s: %s\n", what, errno ? strerror(errno) : "wrong result");
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Grows the count until the work takes long enough to be measured. */
static void measure_here(const struct work *work, double seconds) {
    uint64_t count = 1;
    KEEP(work->run(1)); /* sets its data up */
    for (;;) {
        double start = now();
        KEEP(work->run(count));
        double took = now() - start;
        if (took >= seconds) {
            printf("%s %.6g %s\n", work->name, count * work->scale / took, work->unit);
            fflush(stdout);
            return;
        }
        double factor = took > seconds / 1000 ? seconds * 1.2 / took : 16;
        count = (uint64_t)(count * factor) + 1;
    }
}

/* Each in a process of its own: what one maps must not make the next one's forks slow. */
static void measure(const struct work *work, double seconds) {
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (!child) {
        measure_here(work, seconds);
        exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status)
        exit(1);
}

int main(int argc, char **argv) {
    double seconds = 0.3;
    int list = 0, check = 0, first = 1;
    if (argc > 1 && !strcmp(argv[1], "--exit")) /* what the exec workload executes */
        _exit(7);
    for (; first < argc && argv[first][0] == '-'; first++) {
        list |= !strcmp(argv[first], "--list");
        check |= !strcmp(argv[first], "--check");
        if (!strcmp(argv[first], "--seconds") && first + 1 < argc)
            seconds = atof(argv[++first]);
    }
    int found = 0;
    for (size_t group = 0; group < sizeof groups / sizeof *groups; group++) {
        for (const struct work *work = groups[group]; work->name; work++) {
            int wanted = first == argc;
            for (int i = first; i < argc; i++)
                wanted |= !strcmp(argv[i], work->name);
            if (!wanted)
                continue;
            found++;
            if (list) {
                printf("%s %s\n", work->name, work->unit);
            } else if (check) {
                printf("%s %016llx\n", work->name, (unsigned long long)work->run(check_count));
                fflush(stdout);
            } else {
                measure(work, seconds);
            }
        }
    }
    if (first < argc && found < argc - first) {
        fprintf(stderr, "work: an unknown name; see work --list\n");
        return 2;
    }
    return 0;
}
