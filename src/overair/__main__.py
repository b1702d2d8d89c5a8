"""`python -m overair` is the command `overair`."""

import sys

from overair.cli.main import main

sys.exit(main())
