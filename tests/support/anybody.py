"""Options of subprocess for a process that may not write where modes forbid it, though it is root's."""

from __future__ import annotations

import ctypes
import os
from typing import Any

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h


def _drop() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "can't give up root's right to write anywhere")


AS_ANYBODY: dict[str, Any] = {"preexec_fn": _drop} if os.geteuid() == 0 else {}
