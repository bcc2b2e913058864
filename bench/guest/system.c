/* The kernel's share: system calls, signals, processes, switches between them. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

static uint64_t getpids(uint64_t count) {
    long pid = syscall(SYS_getpid), same = 0;
    for (uint64_t i = 0; i < count * 100; i++)
        same += syscall(SYS_getpid) == pid;
    return (uint64_t)same;
}

static volatile sig_atomic_t caught;

static void catch(int number) { caught += number == SIGUSR1; }

static uint64_t signals(uint64_t count) {
    caught = 0;
    signal(SIGUSR1, catch);
    for (uint64_t i = 0; i < count; i++)
        raise(SIGUSR1);
    return (uint64_t)caught;
}

static int wait_for(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        die("waitpid");
    return WEXITSTATUS(status);
}

static pid_t start(void) {
    pid_t child = fork();
    if (child < 0)
        die("fork");
    return child;
}

static uint64_t fork_exit(uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        pid_t child = start();
        if (!child)
            _exit(7);
        sum += (uint64_t)wait_for(child);
    }
    return sum;
}

static uint64_t fork_exec(uint64_t count) {
    static char *arguments[] = {"work", "--exit", NULL}, *environment[] = {NULL};
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        pid_t child = start();
        if (!child) {
            execve("/proc/self/exe", arguments, environment);
            _exit(1);
        }
        sum += (uint64_t)wait_for(child);
    }
    if (sum != 7 * count)
        die("exec");
    return sum;
}

static void on_one_processor(void) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(0, sizeof one, &one);
}

/* One byte to another process and back: two switches a round. */
static uint64_t pipes(uint64_t count) {
    int there[2], back[2];
    uint8_t byte = 1;
    uint64_t sum = 0;
    if (pipe(there) || pipe(back))
        die("pipe");
    pid_t child = start();
    if (!child)
        on_one_processor();
    if (!child) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) {
            byte++;
            if (write(back[1], &byte, 1) != 1)
                break;
        }
        _exit(0);
    }
    cpu_set_t before;
    sched_getaffinity(0, sizeof before, &before);
    on_one_processor();
    for (uint64_t i = 0; i < count; i++) {
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
            die("pipe");
        sum += byte;
    }
    sched_setaffinity(0, sizeof before, &before);
    close(there[0]);
    close(there[1]);
    close(back[0]);
    close(back[1]);
    wait_for(child);
    return sum;
}

/* Two processes on one processor that yield to each other. */
static uint64_t yields(uint64_t count) {
    cpu_set_t before;
    sched_getaffinity(0, sizeof before, &before);
    on_one_processor();
    pid_t child = start();
    for (uint64_t i = 0; i < count * 100; i++)
        sched_yield();
    if (!child)
        _exit(0);
    wait_for(child);
    sched_setaffinity(0, sizeof before, &before);
    return count;
}

const struct work system_works[] = {
    {"getpid", "calls/s", 100, getpids},
    {"signal", "signals/s", 1, signals},
    {"fork", "processes/s", 1, fork_exit},
    {"exec", "processes/s", 1, fork_exec},
    {"pipe", "round-trips/s", 1, pipes},
    {"yield", "switches/s", 200, yields},
    {NULL, NULL, 0, NULL},
};
