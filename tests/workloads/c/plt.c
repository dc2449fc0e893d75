/* Calls through the lazy procedure linkage table, so short that many samples hit in its stubs. */
#include "workload.h"

long library_one(long value);
long library_two(long value);

NOINLINE long call_library(long value)
{
	for (int i = 0; i < 100000; i++)
		value = library_one(value) + library_two(value);
	return value;
}

int main(int argc, char **argv)
{
	volatile long value = 0;
	begin(argc, argv);
	ready();
	while (running())
		value = call_library(value);
	return 0;
}
