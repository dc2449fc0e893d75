/* Two threads on one CPU hand a byte to and fro through two pipes: four system calls and two switches a round.
 *
 * Prints the nanoseconds of CPU time that a round takes both threads together, after as many rounds as its argument says. Each thread calls itself to a depth of 15
 * first, so that stacks are as deep as those of a usual server.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int to[2], fro[2];
static long rounds;

static void once(int in, int out, int first)
{
	char byte = 0;
	if (first && write(out, &byte, 1) != 1)
		abort();
	if (read(in, &byte, 1) != 1)
		abort();
	if (!first && write(out, &byte, 1) != 1)
		abort();
}

__attribute__((noinline, noclone)) static void deeper(int depth, int in, int out, int first)
{
	if (depth > 0)
		deeper(depth - 1, in, out, first);
	else
		for (long round = 0; round < rounds; round++)
			once(in, out, first);
	__asm__ volatile("" ::: "memory");
}

static void *pong(void *unused)
{
	deeper(15, to[0], fro[1], 0);
	return unused;
}

int main(int argc, char **argv)
{
	cpu_set_t cpus;
	pthread_t thread;
	struct timespec before, after;
	rounds = argc > 1 ? atol(argv[1]) : 100000;
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	if (sched_setaffinity(0, sizeof cpus, &cpus) || pipe(to) || pipe(fro))
		return 1;
	if (pthread_create(&thread, NULL, pong, NULL))
		return 1;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	deeper(15, fro[0], to[1], 1);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	pthread_join(thread, NULL);
	double nanos = (after.tv_sec - before.tv_sec) * 1e9 + (after.tv_nsec - before.tv_nsec);
	printf("%.1f\n", nanos / rounds);
	return 0;
}
