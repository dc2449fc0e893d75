/* Time in the kernel: /dev/zero read in blocks of 1 MiB. */
#include "workload.h"
#include <fcntl.h>
#include <unistd.h>

static char block[1 << 20];

NOINLINE void read_block(int file)
{
	if (read(file, block, sizeof block) != sizeof block)
		abort();
	NOT_A_TAIL_CALL();
}

NOINLINE void read_blocks(int file)
{
	for (int i = 0; i < 100; i++)
		read_block(file);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	int file = open("/dev/zero", O_RDONLY);
	ready();
	while (running())
		read_blocks(file);
	return 0;
}
