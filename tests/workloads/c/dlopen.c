/* Opens the libraries ALPHA and BETA (second and third argument) in turn, 200 ms of CPU time each, and closes the one
 * before it opens the other: both come to lie at the same addresses. With "once" as fourth argument it opens ALPHA one
 * second after it said "ready" and keeps it; until then it burns in `before_open`. */
#include "workload.h"
#include <dlfcn.h>
#include <string.h>

NOINLINE void before_open(void)
{
	burn(1000000000);
	NOT_A_TAIL_CALL();
}

NOINLINE void call_plugin(void *library, uint64_t ns)
{
	void (*entry)(uint64_t) = (void (*)(uint64_t))dlsym(library, "plugin_entry");
	if (!entry)
		abort();
	entry(ns);
	NOT_A_TAIL_CALL();
}

static void *open_plugin(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return library;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	begin(argc, argv);
	ready();
	if (argc > 4 && !strcmp(argv[4], "once")) {
		before_open();
		void *library = open_plugin(argv[2]);
		while (running())
			call_plugin(library, 10000000);
		return 0;
	}
	for (int turn = 0; running(); turn ^= 1) {
		void *library = open_plugin(argv[2 + turn]);
		call_plugin(library, 200000000);
		dlclose(library);
	}
	return 0;
}
