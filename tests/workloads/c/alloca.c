/* Frames whose size is known only at run time (the CFA hangs on rbp), of 16 bytes to 20 KiB, ten of them. */
#include "workload.h"
#include <alloca.h>
#include <string.h>

#define DEPTH 10

NOINLINE void bottom(void)
{
	burn(5000000);
	NOT_A_TAIL_CALL();
}

NOINLINE void grow(unsigned depth)
{
	volatile char *block = alloca(16 + 2000 * depth);
	memset((void *)block, (int)depth, 16);
	if (depth < DEPTH)
		grow(depth + 1);
	else
		bottom();
	if (block[0] != (char)depth)
		abort();
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready();
	while (running())
		grow(1);
	return 0;
}
