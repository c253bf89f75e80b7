"""The native exceptions under their public names.

`TributaryError` is the base of everything this package raises on purpose about a user's data; wrong arguments are
`ValueError` and failing files are `OSError`, as everywhere in Python.
"""

from tributary._headwater import FormatError, SchemaError, TributaryError

__all__ = ["FormatError", "SchemaError", "TributaryError"]
