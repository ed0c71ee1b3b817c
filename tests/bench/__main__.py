"""`python -m tests.bench`: every benchmark of a table, one after the other.

With arguments: the one of the HTTP proxy alone, which takes them.
"""

import subprocess
import sys

from tests.bench.proxy import main

# each in a process of its own: they bind themselves to cores
MODULES = ("tests.bench.proxy", "tests.bench.postgres", "tests.bench.postgres_cut")


def every() -> int:
    """Run all; return how many failed."""
    failed = 0
    for module in MODULES:
        print(f"» {module}", flush=True)
        failed += bool(subprocess.run([sys.executable, "-m", module], check=False).returncode)
    return failed


if __name__ == "__main__":
    if sys.argv[1:]:
        main()
    else:
        sys.exit(every())
