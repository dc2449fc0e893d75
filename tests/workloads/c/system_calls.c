/* System calls whose numbers, results, times and arguments are known. What it does is its second argument:
 *
 * count     known numbers of calls, errors and signals, and a child that makes some; then it runs itself as "second"
 * second    13 calls of getppid
 * latency   2000 sleeps; prints "p50 p95 p99" (ns) as it measured them itself
 * slow DIR  one slow open (of a FIFO in DIR), and one slow receive on a TCP socket, from functions that are named so
 * blocked   a thread waits for ever, from before "ready"
 * killed    a child waits in pause and is killed
 * threads   400 threads, one after the other, call getuid 5 times each; the last of them calls getpid 9 times by the 32-bit
 *           interface (x86-64 only) and then runs the program anew as "second"
 * churn     the same threads with getppid, again and again, until it is killed
 * loop      getppid again and again, until it is killed */
#define _GNU_SOURCE
#include "workload.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int good)
{
	if (!good)
		abort();
}

static void handle(int signal)
{
	(void)signal;
}

static void count(char **argv)
{
	signal(SIGUSR1, handle);
	int null = open("/dev/null", O_WRONLY);
	for (int i = 0; i < 1000; i++)
		syscall(SYS_getppid);
	for (int i = 0; i < 300; i++)
		check(write(null, argv, 8) == 8);
	for (int i = 0; i < 7; i++)
		check(open("/nonexistent/path", O_RDONLY) == -1 && errno == ENOENT);
	for (int i = 0; i < 5; i++)
		check(read(-1, argv, 1) == -1 && errno == EBADF);
	for (int i = 0; i < 3; i++)
		raise(SIGUSR1);
	for (int i = 0; i < 20; i++)
		usleep(1000);
	pid_t child = fork();
	if (child == 0) {
		for (int i = 0; i < 50; i++)
			syscall(SYS_getuid);
		_exit(0);
	}
	check(waitpid(child, NULL, 0) == child);
	check(execl("/nonexistent/program", "program", NULL) == -1);
	execl(argv[0], argv[0], "0", "second", NULL);
	abort();
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void latency(void)
{
	enum { CALLS = 2000 };
	static uint64_t times[CALLS];
	for (int i = 0; i < CALLS; i++) {
		/* From 0.1 ms to 0.5 ms, and one in twenty of 3 ms. */
		struct timespec time = {0, i % 20 == 7 ? 3000000 : 100000 + 200 * i};
		uint64_t start = clock_ns(CLOCK_MONOTONIC);
		syscall(SYS_nanosleep, &time, NULL);
		times[i] = clock_ns(CLOCK_MONOTONIC) - start;
	}
	qsort(times, CALLS, sizeof *times, compare);
	printf("%lu %lu %lu\n", times[CALLS / 2 - 1], times[CALLS * 95 / 100 - 1], times[CALLS * 99 / 100 - 1]);
}

NOINLINE int slow_open(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	NOT_A_TAIL_CALL();
	return file;
}

NOINLINE void slow_receive(int connection)
{
	char buffer[64];
	check(recv(connection, buffer, sizeof buffer, MSG_PEEK) == -1 && errno == EAGAIN);
	NOT_A_TAIL_CALL();
}

static void slow(const char *directory)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/fifo", directory);
	check(mkfifo(path, 0600) == 0);
	if (fork() == 0) {
		usleep(100000);
		check(open(path, O_WRONLY) >= 0);
		_exit(0);
	}
	check(slow_open(path) >= 0);
	wait(NULL);

	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof address;
	check(bind(server, (struct sockaddr *)&address, len) == 0 && listen(server, 1) == 0);
	check(getsockname(server, (struct sockaddr *)&address, &len) == 0);
	check(connect(client, (struct sockaddr *)&address, len) == 0);
	struct timeval patience = {0, 80000};
	check(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
	slow_receive(client);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	/* The descriptor is looked up after the call. */
	usleep(400000);
}

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void blocked(void)
{
	pthread_t thread;
	check(pthread_create(&thread, NULL, wait_for_ever, NULL) == 0);
	usleep(100000);
	ready();
	while (running())
		usleep(10000);
}

static void killed(void)
{
	pid_t child = fork();
	if (child == 0)
		wait_for_ever(NULL);
	usleep(100000);
	kill(child, SIGKILL);
	wait(NULL);
}

static void *call_getuid(void *unused)
{
	for (int i = 0; i < 5; i++)
		syscall(SYS_getuid);
	return unused;
}

static void *call_getppid(void *unused)
{
	for (int i = 0; i < 5; i++)
		syscall(SYS_getppid);
	return unused;
}

static void run_threads(int count, void *(*body)(void *))
{
	for (int i = 0; i < count; i++) {
		pthread_t thread;
		check(pthread_create(&thread, NULL, body, NULL) == 0);
		check(pthread_join(thread, NULL) == 0);
	}
}

static void *become_second(void *program)
{
	call_getuid(NULL);
#ifdef __x86_64__
	for (int i = 0; i < 9; i++) {
		long number = 20; /* getpid */
		__asm__ volatile("int $0x80" : "+a"(number) : : "memory", "r8", "r9", "r10", "r11");
		check(number == getpid());
	}
#endif
	execl(program, program, "0", "second", NULL);
	abort();
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	const char *what = argc > 2 ? argv[2] : "loop";
	if (!strcmp(what, "count"))
		count(argv);
	else if (!strcmp(what, "second"))
		for (int i = 0; i < 13; i++)
			syscall(SYS_getppid);
	else if (!strcmp(what, "latency"))
		latency();
	else if (!strcmp(what, "slow") && argc > 3)
		slow(argv[3]);
	else if (!strcmp(what, "blocked"))
		blocked();
	else if (!strcmp(what, "killed"))
		killed();
	else if (!strcmp(what, "threads")) {
		run_threads(399, call_getuid);
		pthread_t thread;
		check(pthread_create(&thread, NULL, become_second, argv[0]) == 0);
		pthread_join(thread, NULL);
	} else if (!strcmp(what, "churn")) {
		ready();
		while (running())
			run_threads(10, call_getppid);
	} else {
		ready();
		while (running())
			syscall(SYS_getppid);
	}
	return 0;
}
