"""`python -m agent.proxy`."""

import sys

from agent.proxy.main import main

if __name__ == "__main__":
    sys.exit(main())
