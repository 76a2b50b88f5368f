"""Start a command, wait for it, and write what it took into a file: wall, CPU, peak, exit code.

A process of its own, because on Linux a child's peak memory begins at that of the process that
started it, and the benchmarks' own is not small after a walk over 100,000 files.
"""

import os
import sys
import time


def main(told: str, command: list[str]) -> None:
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, used = os.wait4(child, 0)
    wall = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    with open(told, "w") as file:
        file.write(f"{wall} {used.ru_utime + used.ru_stime} {used.ru_maxrss * 1024} {code}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
