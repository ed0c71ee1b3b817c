"""`python -m agent.broker`."""

import sys

from agent.broker.main import main

sys.exit(main())
