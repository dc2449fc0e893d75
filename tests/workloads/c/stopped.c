/* Comes to a known point and spins there on one instruction for ever, so that every sample has the same stack, which a
 * debugger can read as well. On the way: recursion, a frame of run-time size, a frame with an over-aligned local, a qsort
 * callback, an inlined function, and calls that never return, which are the last instruction of their functions (their
 * return addresses belong to whatever the linker put behind). */
#include "workload.h"
#include <alloca.h>

#define NORETURN __attribute__((noreturn))

NORETURN NOINLINE void known_point(void)
{
	ready();
	for (;;)
		__asm__ volatile("" ::: "memory");
}

NORETURN NOINLINE void ends_in_a_call(void)
{
	known_point();
}

ALWAYS_INLINE void inlined_step(volatile int *value)
{
	*value += 1;
	ends_in_a_call();
}

static int compare(const void *left, const void *right)
{
	volatile int value = *(const int *)left + *(const int *)right;
	inlined_step(&value);
	return value;
}

NOINLINE void through_qsort(void)
{
	int pair[2] = {2, 1};
	qsort(pair, 2, sizeof pair[0], compare);
	NOT_A_TAIL_CALL();
}

NOINLINE void realigned(unsigned size)
{
	_Alignas(64) volatile char aligned[64];
	volatile char *block = alloca(size);
	aligned[0] = block[0] = 1;
	through_qsort();
	block[0] = aligned[0];
}

NOINLINE void recurse(unsigned depth)
{
	if (depth == 0)
		realigned(512);
	else
		recurse(depth - 1);
	NOT_A_TAIL_CALL();
}

int main(void)
{
	recurse(25);
	return 0;
}
