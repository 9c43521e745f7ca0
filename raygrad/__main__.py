"""`python -m raygrad` is the command `raygrad`."""

import sys

from raygrad.cli import main

sys.exit(main())
