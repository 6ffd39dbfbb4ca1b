"""How well a model predicts text, with confidence intervals.

The package is callable: ``tickwise.evaluate(model, data)`` names the function, and stays that function
after an import of a module of this package has bound the package to the same name.
"""

import sys
import types
from typing import Any


class _CallablePackage(types.ModuleType):
    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        from tickwise.evaluate.perplexity import evaluate

        return evaluate(*arguments, **settings)


sys.modules[__name__].__class__ = _CallablePackage
