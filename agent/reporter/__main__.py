"""`python -m agent.reporter`, as the supervisor starts it."""

import sys

from agent.reporter.main import main

sys.exit(main())
