/* Three children, one after the other, that burn 0.5 s of CPU time each in `child_work`; the parent has burnt 0.5 s in
 * `parent_work` before. With "keep" as second argument the children come before "ready" and burn until they are killed. */
#include "workload.h"
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

NOINLINE void parent_work(void)
{
	burn(500000000);
	NOT_A_TAIL_CALL();
}

NOINLINE void child_work(void)
{
	burn(500000000);
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
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
	parent_work();
	for (int i = 0; i < 3; i++) {
		pid_t child = fork();
		if (child == 0) {
			child_work();
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	return 0;
}
