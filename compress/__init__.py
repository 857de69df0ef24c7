"""Make image classifiers small and fast for edge devices, and verify the result.

The Python API has five functions, which are imported when they are first used; see README.md in this folder.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = ["check", "measure", "prune", "quantize", "run"]

if TYPE_CHECKING:
    from compress.api.check import check
    from compress.api.measure import measure
    from compress.api.prune import prune
    from compress.api.quantize import quantize
    from compress.api.run import run
else:  # not for type checkers, which would accept any name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'compress' has no attribute '{name}'")
        function = getattr(importlib.import_module(f"compress.api.{name}"), name)
        globals()[name] = function  # found without this function from now on
        return function

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
