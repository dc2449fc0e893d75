/* Burns 1.5 s of CPU time in `before_exec`, then becomes the program named by its other arguments. */
#include "workload.h"
#include <unistd.h>

NOINLINE void before_exec(void)
{
	burn(1500000000);
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	ready();
	before_exec();
	execv(argv[1], argv + 1);
	return 1;
}
