// A USDT probe with a semaphore, as <sys/sdt.h> makes it, in a function with arguments of several kinds. The probe is only
// reached while somebody listens.
#include <stdio.h>

unsigned short semaphore __attribute__((section(".probes"), used)) = 0;

#define PROBE(a, b)                                                                                                      \
    __asm__ volatile("990: nop\n"                                                                                        \
                     ".pushsection .note.stapsdt,\"?\",\"note\"\n"                                                       \
                     ".balign 4\n.4byte 992f-991f, 994f-993f, 3\n"                                                       \
                     "991: .asciz \"stapsdt\"\n"                                                                         \
                     "992: .balign 4\n"                                                                                  \
                     "993: .8byte 990b\n.8byte _.stapsdt.base\n.8byte semaphore\n"                                       \
                     ".asciz \"provider\"\n.asciz \"name\"\n.asciz \"-4@%0 8@%1\"\n"                                     \
                     "994: .balign 4\n.popsection\n"                                                                     \
                     ".ifndef _.stapsdt.base\n"                                                                          \
                     ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"                             \
                     ".weak _.stapsdt.base\n.hidden _.stapsdt.base\n"                                                    \
                     "_.stapsdt.base: .space 1\n.size _.stapsdt.base, 1\n.popsection\n.endif\n" ::"nor"(a),              \
                     "nor"(b))

__attribute__((noinline, noclone)) long add(int a, long b, double between, const char *name) {
    if (*(volatile unsigned short *)&semaphore) PROBE(a, b);
    return a + b + (long)between + name[0];
}

int main(void) {
    long sum = 0;
    for (int i = 0; i < 3; i++) sum += add(-i, i * 10L, 1.5, "a\"b");
    printf("%ld\n", sum);
    return 0;
}
