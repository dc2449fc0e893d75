/* As many processes as the second argument says (100), one after the other, each of which executes this file anew and burns
 * 10 ms of CPU time in `short_lived_work`. */
#include "workload.h"
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

NOINLINE void short_lived_work(void)
{
	burn(10000000);
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "leaf")) {
		short_lived_work();
		return 0;
	}
	int count = argc > 2 ? atoi(argv[2]) : 100;
	ready();
	for (int i = 0; i < count; i++) {
		pid_t child = fork();
		if (child == 0) {
			execl(argv[0], argv[0], "leaf", NULL);
			_exit(1);
		}
		waitpid(child, NULL, 0);
	}
	return 0;
}
