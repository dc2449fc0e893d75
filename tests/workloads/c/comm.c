/* Takes the name "renamed" after one second of CPU time. */
#include "workload.h"
#include <sys/prctl.h>

NOINLINE void before_rename(void)
{
	burn(1000000000);
	NOT_A_TAIL_CALL();
}

NOINLINE void after_rename(void)
{
	burn(10000000);
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready();
	before_rename();
	prctl(PR_SET_NAME, "renamed");
	while (running())
		after_rename();
	return 0;
}
