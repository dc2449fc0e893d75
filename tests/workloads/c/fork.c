/* Burns 100 ms of CPU time in `parent_work`, then has a child do so in `child_work`, and so on. With "keep" as second
 * argument there is one child, made before "ready", that burns for ever while its parent sleeps. */
#include "workload.h"
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

NOINLINE void parent_work(void)
{
	burn(100000000);
	NOT_A_TAIL_CALL();
}

NOINLINE void child_work(void)
{
	burn(100000000);
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	if (argc > 2 && !strcmp(argv[2], "keep")) {
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				child_work();
		}
		ready();
		for (;;)
			pause();
	}
	ready();
	while (running()) {
		parent_work();
		pid_t child = fork();
		if (child == 0) {
			child_work();
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	return 0;
}
