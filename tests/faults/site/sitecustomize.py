"""Put on PYTHONPATH, this makes faults happen in workers that are started in the ordinary way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if "WARM_NOTES" in os.environ and "-m" in sys.orig_argv:
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    with Path(os.environ["WARM_NOTES"]).open("a") as notes:
        notes.write(f"{module} {os.getpid()}\n")
    if module == os.environ.get("WARM_HOOKED"):
        sys.path.insert(0, str(Path(__file__).parents[3]))
        from tests.faults.hooks import install

        install()
