/* Burns under each of the functions of rules.S in turn, a quarter of the time each; the frame above them, `framed`, has a
 * CFA by rbp, so that a wrong rbp cuts the stack. */
#include "workload.h"
#include <alloca.h>

void cfa_by_rbx(void (*)(void));
void cfa_by_expression(void (*)(void));
void rbp_by_expression(void (*)(void));
void rbp_in_register(void (*)(void));

NOINLINE void bottom(void)
{
	burn(1300000);
	NOT_A_TAIL_CALL();
}

NOINLINE void framed(unsigned size, void (*rule)(void (*)(void)))
{
	volatile char *block = alloca(size);
	block[0] = 1;
	rule(bottom);
	block[1] = block[0];
}

int main(int argc, char **argv)
{
	volatile unsigned size = 100;
	begin(argc, argv);
	ready();
	while (running()) {
		framed(size, cfa_by_rbx);
		framed(size, cfa_by_expression);
		framed(size, rbp_by_expression);
		framed(size, rbp_in_register);
	}
	return 0;
}
