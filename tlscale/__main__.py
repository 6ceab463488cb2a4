"""`python -m tlscale` is the `tlscale` command."""

import sys

from tlscale.cli import main

sys.exit(main())
