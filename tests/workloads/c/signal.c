/* A timer signal whose handler burns half of the CPU time: its stacks go through the signal frame into `interrupted`.
 * With "alt" as second argument the handler has its own stack, which lies elsewhere in memory. */
#include "workload.h"
#include <signal.h>
#include <string.h>
#include <sys/time.h>

NOINLINE void in_handler(void)
{
	burn(5000000);
	NOT_A_TAIL_CALL();
}

static void on_signal(int number)
{
	(void)number;
	in_handler();
	NOT_A_TAIL_CALL();
}

/* No system call here: whatever is interrupted is this function's own code. */
NOINLINE void interrupted(void)
{
	spin();
	NOT_A_TAIL_CALL();
}

NOINLINE void work(void)
{
	for (int i = 0; i < 100; i++)
		interrupted();
	NOT_A_TAIL_CALL();
}

int main(int argc, char **argv)
{
	static char stack[256 * 1024];
	begin(argc, argv);
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_signal;
	if (argc > 2 && !strcmp(argv[2], "alt")) {
		stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
		sigaltstack(&alternate, NULL);
		action.sa_flags = SA_ONSTACK;
	}
	sigaction(SIGPROF, &action, NULL);
	struct itimerval every = {.it_interval = {.tv_usec = 10000}, .it_value = {.tv_usec = 10000}};
	setitimer(ITIMER_PROF, &every, NULL);
	ready();
	while (running())
		work();
	return 0;
}
