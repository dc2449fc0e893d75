/* Threads that share the CPUs, sleep for short and for long, and wait for each other, until the program is killed. */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>

#include "workload.h"

static int ends[2][2];

static void *burns(void *name)
{
	pthread_setname_np(pthread_self(), name);
	for (;;)
		burn(50000000);
	return NULL;
}

static void *naps(void *name)
{
	pthread_setname_np(pthread_self(), name);
	for (;;) {
		usleep(500);
		burn(200000);
	}
	return NULL;
}

static void *sleeps(void *name)
{
	pthread_setname_np(pthread_self(), name);
	for (;;)
		pause();
	return NULL;
}

static void *pings(void *name)
{
	char byte = 0;
	pthread_setname_np(pthread_self(), name);
	while (write(ends[0][1], &byte, 1) == 1 && read(ends[1][0], &byte, 1) == 1)
		;
	return NULL;
}

static void *pongs(void *name)
{
	char byte;
	pthread_setname_np(pthread_self(), name);
	while (read(ends[0][0], &byte, 1) == 1 && write(ends[1][1], &byte, 1) == 1)
		;
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct {
		void *(*run)(void *);
		const char *name;
	} threads[] = {
		{ burns, "burns1" }, { burns, "burns2" }, { burns, "burns3" }, { naps, "naps" },
		{ sleeps, "sleeps" }, { pings, "pings" }, { pongs, "pongs" },
	};
	begin(argc, argv);
	if (pipe(ends[0]) != 0 || pipe(ends[1]) != 0)
		return 1;
	for (unsigned index = 0; index < sizeof threads / sizeof *threads; index++) {
		pthread_t thread;
		pthread_create(&thread, NULL, threads[index].run, (void *)threads[index].name);
	}
	/* All of them have their names. */
	usleep(300000);
	ready();
	while (running())
		usleep(100000);
	return 0;
}
