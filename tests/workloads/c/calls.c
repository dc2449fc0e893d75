// Known calls of known functions: `calls WHAT N`. Prints the CPU time that each of the N took (ns).
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static volatile unsigned long sink;

// A function whose entry is `endbr64; push`.
__asm__(".text\n.globl pushed\n.type pushed,@function\npushed:\n endbr64\n push %rbp\n mov %rsp,%rbp\n"
        " pop %rbp\n ret\n.size pushed,.-pushed\n");
void pushed(void);

static void wait_ns(long ns) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < ns);
}

NOINLINE void inner(void) { wait_ns(200000); sink++; }
NOINLINE void outer(void) { wait_ns(100000); inner(); inner(); sink++; }

NOINLINE unsigned long recurse(int depth) { return depth == 0 ? ++sink : recurse(depth - 1) + sink; }

static jmp_buf back;
static volatile int never;
NOINLINE void jumps(int deep) {
    if (deep) jumps(deep - 1);
    else if (!never) longjmp(back, 1);
    sink++;
}
NOINLINE void catches(void) { if (!setjmp(back)) jumps(2); sink++; }

NOINLINE void tail_end(void) { sink++; }
// Compilers turn the call into a jump.
NOINLINE __attribute__((optimize("optimize-sibling-calls"))) void tail_begin(void) { sink++; tail_end(); }

NOINLINE void in_child(void) { sink++; }
NOINLINE int forks(void) {
    pid_t child = fork();
    if (child == 0) {
        in_child();
        // The child returns from a call that its parent began.
        return 1;
    }
    waitpid(child, NULL, 0);
    return 0;
}

NOINLINE void in_thread(void) { sink++; }
static void *thread(void *n) {
    for (long i = 0; i < (long)n; i++) in_thread();
    return NULL;
}

NOINLINE void leaves(int code) { exit(code); }

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    long n = argc > 2 ? atol(argv[2]) : 1;
    struct timespec start, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    if (!strcmp(what, "pushed")) for (long i = 0; i < n; i++) pushed();
    if (!strcmp(what, "nested")) for (long i = 0; i < n; i++) outer();
    if (!strcmp(what, "recurse")) for (long i = 0; i < n; i++) recurse(100);
    if (!strcmp(what, "longjmp")) for (long i = 0; i < n; i++) catches();
    if (!strcmp(what, "tail")) for (long i = 0; i < n; i++) tail_begin();
    if (!strcmp(what, "fork")) for (long i = 0; i < n; i++) if (forks()) return 0;
    if (!strcmp(what, "exit")) leaves(0);
    if (!strcmp(what, "exec")) { inner(); execl("/proc/self/exe", argv[0], "nested", argv[2], NULL); }
    if (!strcmp(what, "threads")) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, thread, (void *)n);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    printf("%.1f\n", ((end.tv_sec - start.tv_sec) * 1e9 + end.tv_nsec - start.tv_nsec) / (double)n);
    return 0;
}
