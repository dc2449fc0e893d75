/* What the C and C++ workloads share.
 *
 * Every workload takes the seconds to run as its first argument (0 or none: until it is killed) and prints "ready" once its
 * measured part has begun, so that a test knows when to look. The time that a function burns is counted by the
 * thread's own CPU clock, so the shares are right however busy the machine is.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef __cplusplus
#define NOINLINE __attribute__((noinline))
extern "C" {
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Placed after a call, it keeps the compiler from turning the call into a jump, which would leave no frame. */
#define NOT_A_TAIL_CALL() __asm__ volatile("" ::: "memory")

ALWAYS_INLINE uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Some tens of microseconds of arithmetic in the function that calls it. */
ALWAYS_INLINE void spin(void)
{
	uint64_t value = 1;
	for (unsigned round = 0; round < 20000; round++) {
		value = value * 6364136223846793005u + 1442695040888963407u;
		__asm__ volatile("" : "+r"(value));
	}
}

/* Burns until the thread has used `deadline` nanoseconds of CPU in all. */
ALWAYS_INLINE void burn_until(uint64_t deadline)
{
	do
		spin();
	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < deadline);
}

/* Burns `ns` nanoseconds of the thread's CPU time. */
ALWAYS_INLINE void burn(uint64_t ns)
{
	burn_until(clock_ns(CLOCK_THREAD_CPUTIME_ID) + ns);
}

static uint64_t workload_end __attribute__((unused));

/* Reads the seconds from the arguments. */
ALWAYS_INLINE void begin(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 0;
	workload_end = seconds > 0 ? clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9) : UINT64_MAX;
}

/* Tells the test that the measured part begins. */
ALWAYS_INLINE void ready(void)
{
	puts("ready");
	fflush(stdout);
}

/* Whether there is time left. */
ALWAYS_INLINE int running(void)
{
	return clock_ns(CLOCK_MONOTONIC) < workload_end;
}

#ifdef __cplusplus
}
#endif
#endif
