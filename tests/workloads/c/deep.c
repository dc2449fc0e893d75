/* Recursion through qsort: sixty calls of `compare`, each from a qsort of its own, and all time in `bottom`, into which
 * `innermost` is inlined. */
#include "workload.h"

#define DEPTH 60

static int level;

ALWAYS_INLINE void innermost(void)
{
	burn(5000000);
}

NOINLINE void bottom(void)
{
	innermost();
	NOT_A_TAIL_CALL();
}

NOINLINE int compare(const void *left, const void *right)
{
	int mine = ++level;
	if (mine == DEPTH) {
		bottom();
	} else {
		int pair[2] = {2, 1};
		qsort(pair, 2, sizeof pair[0], compare);
	}
	level = mine - 1;
	return *(const int *)left - *(const int *)right;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready();
	while (running()) {
		int pair[2] = {2, 1};
		level = 0;
		qsort(pair, 2, sizeof pair[0], compare);
	}
	return 0;
}
