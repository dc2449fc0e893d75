"""Recursion through C code (map), 40 deep: each level is a frame of the interpreter and of a built-in function."""
import sys
import time


def bottom(_):
    total = 0
    for i in range(20000):
        total += i * i
    return total


def descend(depth):
    if depth == 0:
        return bottom(0)
    return next(map(descend, [depth - 1]))


end = time.monotonic() + float(sys.argv[1]) if len(sys.argv) > 1 and float(sys.argv[1]) > 0 else float("inf")
print("ready", flush=True)
while time.monotonic() < end:
    descend(40)
