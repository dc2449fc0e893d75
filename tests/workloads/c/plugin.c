/* A library to be opened while its process is measured. Built twice: as `alpha` and, with frames of another size and
 * other code before them, as `beta`; so rows or names kept from the one are wrong for the other. */
#include "workload.h"
#include <string.h>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

#if PADDING
void JOIN(PLUGIN, _padding)(volatile int *out)
{
	for (int i = 0; i < 100; i++)
		out[i] = out[i + 1] * 3 + i;
}
#endif

NOINLINE void JOIN(PLUGIN, _burn)(uint64_t ns)
{
	volatile char room[64 + PADDING];
	memset((void *)room, 0, sizeof room);
	burn(ns);
	NOT_A_TAIL_CALL();
}

NOINLINE void JOIN(PLUGIN, _inner)(uint64_t ns)
{
	volatile char room[32 + 3 * PADDING];
	room[0] = 1;
	JOIN(PLUGIN, _burn)(ns);
	room[1] = room[0];
}

void plugin_entry(uint64_t ns)
{
	JOIN(PLUGIN, _inner)(ns);
	NOT_A_TAIL_CALL();
}
