/* Three functions with exactly 60, 30 and 10 per cent of the CPU time. The cycle of 3.7 ms is no multiple of a sampling
 * period, and deadlines are kept over all cycles, so that no error adds up. */
#include "workload.h"

#define UNIT 37000u

NOINLINE void sixty(uint64_t deadline)
{
	burn_until(deadline);
	NOT_A_TAIL_CALL();
}

NOINLINE void thirty(uint64_t deadline)
{
	burn_until(deadline);
	NOT_A_TAIL_CALL();
}

NOINLINE void ten(uint64_t deadline)
{
	burn_until(deadline);
	NOT_A_TAIL_CALL();
}

NOINLINE void cycle(uint64_t *deadline)
{
	sixty(*deadline += 60 * UNIT);
	thirty(*deadline += 30 * UNIT);
	ten(*deadline += 10 * UNIT);
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready();
	uint64_t deadline = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	while (running())
		cycle(&deadline);
	return 0;
}
