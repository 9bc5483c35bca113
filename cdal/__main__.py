"""`python -m cdal` is the command `cdal`."""

import sys

from cdal.cli import main

sys.exit(main())
