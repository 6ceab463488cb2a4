"""tlscale: distributed fine-tuning and transfer learning that proves what each transfer did."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Plan", "Recipe", "Run", "__version__", "evaluate", "plan", "run"]


def __getattr__(name: str) -> Any:
    """The Python API, imported when it is first asked for: `import tlscale` itself loads nothing."""
    if name in __all__:
        return getattr(importlib.import_module("tlscale.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
