"""What libraries say while a model is loaded, wrapped or saved: hushed, or made an error of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError
from transformers.utils import logging

from tlscale.errors import PlanError

PEFT_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    ImportError,
    OSError,
    SafetensorError,
)


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Only errors are logged inside; progress bars are kept only if `bars`. Restored on the way out."""
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if shown and not bars:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT still asks for the name that transformers 5.23 gave up.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            # AdaLoRA's pattern is keyed by parameter and applied after this complaint about modules.
            warnings.filterwarnings("ignore", "The following rank_pattern keys", RuntimeWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if shown and not bars:
            logging.enable_progress_bar()


@contextmanager
def peft_errors(where: str) -> Iterator[None]:
    """PEFT's errors, and its warning that a file lacks weights of the adapter, as `PlanError`."""
    try:
        with quiet(), warnings.catch_warnings():
            # checked before, with a message of ours
            warnings.filterwarnings("ignore", ".*ensure_weight_tying.*")
            warnings.filterwarnings("error", ".*missing adapter keys")
            yield
    except PlanError:
        raise
    except (*PEFT_ERRORS, Warning) as error:
        reason = str(error).strip() or type(error).__name__
        raise PlanError(f"{where}: PEFT refuses the adapter: {reason[:600]}") from error
