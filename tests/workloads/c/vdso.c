/* Most of the time in the vdso. */
#include "workload.h"

NOINLINE void ask_clock(void)
{
	struct timespec now;
	for (int i = 0; i < 100000; i++)
		clock_gettime(CLOCK_MONOTONIC, &now);
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready();
	while (running())
		ask_clock();
	return 0;
}
