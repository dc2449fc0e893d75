// Exceptions through known functions: `throws N`. Each round throws once from `space::thrower(int)`, through
// `space::passes(int)` three times, to `space::catches<int>(int)`. Prints how many were caught.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#define NOINLINE __attribute__((noinline))

static volatile unsigned long sink;

namespace space {

struct Guard {
    ~Guard() { sink = sink + 1; }
};

NOINLINE void thrower(int value) {
    if (value >= 0) throw std::runtime_error("known");
    sink = sink + 1;
}

NOINLINE void passes(int depth) {
    Guard guard;
    if (depth == 0) thrower(1);
    else passes(depth - 1);
}

template <typename T> NOINLINE bool catches(T depth) {
    try {
        passes(depth);
    } catch (const std::runtime_error &) {
        return true;
    }
    return false;
}

NOINLINE void quiet() { thrower(-1); sink = sink + 1; }

} // namespace space

int main(int argc, char **argv) {
    int rounds = argc > 1 ? std::atoi(argv[1]) : 1, caught = 0;
    for (int i = 0; i < rounds; i++) {
        caught += space::catches<int>(2);
        space::quiet();
    }
    std::printf("%d\n", caught);
    return 0;
}
