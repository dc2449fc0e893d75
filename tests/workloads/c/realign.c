/* Frames with over-aligned locals and a size known only at run time: on x86_64 the compiler keeps the caller's stack
 * pointer in r10 and says so by a DWARF expression (CFA = *(rbp - 8)). */
#include "workload.h"
#include <alloca.h>

#define DEPTH 8

NOINLINE void bottom(void)
{
	burn(5000000);
	NOT_A_TAIL_CALL();
}

NOINLINE void realigned(unsigned depth, ...)
{
	_Alignas(64) volatile char aligned[64];
	volatile char *block = alloca(8 + depth * 40);
	aligned[0] = block[0] = (char)depth;
	if ((uintptr_t)aligned % 64)
		abort();
	if (depth < DEPTH)
		realigned(depth + 1, aligned);
	else
		bottom();
	aligned[1] = block[0];
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready();
	while (running())
		realigned(1);
	return 0;
}
