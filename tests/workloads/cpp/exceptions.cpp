// Throws through ten frames with destructors and catches, for ever. The call of __cxa_throw is the last instruction of
// `thrower`: its return address lies behind the function.
#include "../c/workload.h"
#include <stdexcept>
#include <string>

namespace shop {

static volatile int closed;

struct Guard {
	~Guard() { closed = (closed + 1) & 0xffff; }
};

NOINLINE void thrower(int order)
{
	throw std::runtime_error("order " + std::to_string(order));
}

NOINLINE void pass(int depth, int order)
{
	Guard guard;
	if (closed < 0)
		return;
	if (depth == 0)
		thrower(order);
	else
		pass(depth - 1, order);
	NOT_A_TAIL_CALL();
}

NOINLINE int catcher(int order)
{
	try {
		pass(9, order);
	} catch (const std::exception &error) {
		return error.what()[0];
	}
	return 0;
}

} // namespace shop

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready();
	while (running())
		for (int order = 0; order < 100; order++)
			shop::catcher(order);
	return 0;
}
