/* Three named threads that take jobs of 50, 30 and 20 parts of CPU time, round by round. */
#define _GNU_SOURCE
#include "workload.h"
#include <pthread.h>

#define THREADS 3
#define UNIT 71000u

static const unsigned parts[THREADS] = {50, 30, 20};
static const char *const names[THREADS] = {"pool-fifty", "pool-thirty", "pool-twenty"};
static pthread_barrier_t round_begins;

NOINLINE void job(uint64_t deadline)
{
	burn_until(deadline);
	NOT_A_TAIL_CALL();
}

static void *worker(void *argument)
{
	unsigned index = (unsigned)(uintptr_t)argument;
	pthread_setname_np(pthread_self(), names[index]);
	uint64_t deadline = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (;;) {
		pthread_barrier_wait(&round_begins);
		job(deadline += parts[index] * UNIT);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pthread_barrier_init(&round_begins, NULL, THREADS + 1);
	for (uintptr_t i = 0; i < THREADS; i++) {
		pthread_t thread;
		pthread_create(&thread, NULL, worker, (void *)i);
	}
	pthread_barrier_wait(&round_begins);
	ready();
	while (running())
		pthread_barrier_wait(&round_begins);
	return 0;
}
