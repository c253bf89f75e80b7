"""The package `tributary.preprocess` can be called like the function of its name.

Importing the package makes it an attribute of `tributary`, in the place of the function; either way
`tributary.preprocess(input_dir, output)` works.
"""

from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """The class of the package."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """`tributary.preprocess.preprocess`."""
        return self.preprocess(*arguments, **options)
