/* Spins at the bottom of a recursion: `recurse DEPTH` has DEPTH frames of `down` above `spin`, and runs until killed. */
#include <stdio.h>
#include <stdlib.h>

static volatile unsigned long sink;

__attribute__((noinline)) static void spin(void)
{
    for (;;)
        sink = sink * 6364136223846793005UL + 1;
}

/* The sum after the call keeps it from becoming a jump. */
__attribute__((noinline)) static unsigned long down(int depth)
{
    if (depth <= 1) {
        spin();
        return 0;
    }
    return down(depth - 1) + sink;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: recurse DEPTH\n", stderr);
        return 2;
    }
    return (int)down(atoi(argv[1]));
}
