/* Waits for known reasons, each in a function of its own, one after the other: sleeps, a lock that another thread holds, a
 * pipe, a socket, a connection, a poll, a disk, a child.
 *
 * Into the file of its first argument it writes a line for each: name of the function, time that it took (ns), time that its
 * thread was on a CPU meanwhile (ns). With a second argument it runs on that CPU only.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define ROUNDS 10
/* Many, because each is short on a fast disk and the hypervisor takes the CPU now and then. */
#define SYNCS 4000
/* Nanoseconds of one wait. */
#define WAIT 30000000u

static void must(int right)
{
	if (!right)
		abort();
}

static NOINLINE void pause_a_while(void)
{
	struct timespec time = { .tv_nsec = WAIT };
	clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static int ends[2];

/* Holds the lock while the other thread wants it. */
static void *holder(void *unused)
{
	for (int round = 0; round < ROUNDS; round++) {
		pthread_mutex_lock(&mutex);
		pthread_barrier_wait(&barrier);
		pause_a_while();
		pthread_mutex_unlock(&mutex);
		pthread_barrier_wait(&barrier);
	}
	return unused;
}

/* Writes a byte after each pause. */
static void *writer(void *unused)
{
	for (int round = 0; round < ROUNDS; round++) {
		pause_a_while();
		must(write(ends[1], "x", 1) == 1);
	}
	return unused;
}

static struct sockaddr_in address = { .sin_family = AF_INET };

/* Connects after each pause. */
static void *connector(void *unused)
{
	for (int round = 0; round < ROUNDS; round++) {
		pause_a_while();
		int connection = socket(AF_INET, SOCK_STREAM, 0);
		must(connect(connection, (struct sockaddr *)&address, sizeof address) == 0);
		close(connection);
	}
	return unused;
}

static NOINLINE void sleeps(void)
{
	for (int round = 0; round < ROUNDS; round++)
		pause_a_while();
}

static NOINLINE void locks(void)
{
	for (int round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier);
		pthread_mutex_lock(&mutex);
		pthread_mutex_unlock(&mutex);
		pthread_barrier_wait(&barrier);
	}
}

static NOINLINE void reads_pipe(void)
{
	char byte;
	for (int round = 0; round < ROUNDS; round++)
		must(read(ends[0], &byte, 1) == 1);
}

static NOINLINE void reads_socket(void)
{
	char byte;
	for (int round = 0; round < ROUNDS; round++)
		must(recv(ends[0], &byte, 1, 0) == 1);
}

static NOINLINE void polls(void)
{
	char byte;
	for (int round = 0; round < ROUNDS; round++) {
		struct pollfd file = { .fd = ends[0], .events = POLLIN };
		must(poll(&file, 1, -1) == 1);
		must(recv(ends[0], &byte, 1, 0) == 1);
	}
}

static int listener;

static NOINLINE void accepts(void)
{
	for (int round = 0; round < ROUNDS; round++)
		close(accept(listener, NULL, NULL));
}

static NOINLINE void syncs(const char *path)
{
	static char block[1 << 12];
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	must(file >= 0);
	for (int round = 0; round < SYNCS; round++) {
		memset(block, round, sizeof block);
		must(pwrite(file, block, sizeof block, 0) == sizeof block);
		must(fsync(file) == 0);
	}
	close(file);
	unlink(path);
	NOT_A_TAIL_CALL();
}

static NOINLINE void waits_for_child(void)
{
	pid_t child = fork();
	if (child == 0) {
		for (int round = 0; round < ROUNDS; round++)
			pause_a_while();
		_exit(0);
	}
	must(waitpid(child, NULL, 0) == child);
}

static FILE *results;
static uint64_t wall, cpu;

static void start_clocks(void)
{
	wall = clock_ns(CLOCK_MONOTONIC);
	cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static void stop_clocks(const char *name)
{
	uint64_t on_cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
	uint64_t elapsed = clock_ns(CLOCK_MONOTONIC) - wall;
	fprintf(results, "%s %llu %llu\n", name, (unsigned long long)elapsed, (unsigned long long)on_cpu);
}

/* Runs `waiter` against a thread, if there is one to run. */
static void timed(const char *name, void (*waiter)(void), void *(*other)(void *))
{
	pthread_t thread;
	start_clocks();
	if (other)
		must(pthread_create(&thread, NULL, other, NULL) == 0);
	waiter();
	stop_clocks(name);
	if (other)
		pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	must(argc > 1);
	if (argc > 2) {
		cpu_set_t cpus;
		CPU_ZERO(&cpus);
		CPU_SET(atoi(argv[2]), &cpus);
		must(sched_setaffinity(0, sizeof cpus, &cpus) == 0);
	}
	results = fopen(argv[1], "w");
	must(results != NULL);
	/* The profiler gets to know this program. */
	for (int round = 0; round < 10; round++)
		pause_a_while();

	timed("sleeps", sleeps, NULL);
	pthread_barrier_init(&barrier, NULL, 2);
	timed("locks", locks, holder);
	must(pipe(ends) == 0);
	timed("reads_pipe", reads_pipe, writer);
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	timed("reads_socket", reads_socket, writer);
	timed("polls", polls, writer);

	listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof address;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 4) == 0);
	must(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	timed("accepts", accepts, connector);
	timed("waits_for_child", waits_for_child, NULL);

	char path[4096];
	snprintf(path, sizeof path, "%s.data", argv[1]);
	start_clocks();
	syncs(path);
	stop_clocks("syncs");
	fclose(results);
	return 0;
}
