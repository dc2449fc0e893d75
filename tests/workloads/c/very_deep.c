/* A stack of 2000 frames: more than any profiler keeps. */
#include "workload.h"

#define DEPTH 2000

NOINLINE void bottom(void)
{
	burn(5000000);
	NOT_A_TAIL_CALL();
}

NOINLINE void descend(unsigned depth)
{
	if (depth < DEPTH)
		descend(depth + 1);
	else
		bottom();
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready();
	while (running())
		descend(1);
	return 0;
}
