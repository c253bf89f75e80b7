"""The published Relational Transformers (rt-v1, rt-plurel, rt-j), so that their weights run on our databases.

The only room that knows another project's conventions: what its models compute (`block`, `transformer`), how they read
our batch (`cells`), and what their files call things (`names`). Described in `documentation/published_models.md`.
"""

from tributary.model.published.architectures import ARCHITECTURES, Architecture
from tributary.model.published.names import MisfitError, check_fit, tensors_of, to_params
from tributary.model.published.transformer import PublishedTransformer

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "MisfitError",
    "PublishedTransformer",
    "check_fit",
    "tensors_of",
    "to_params",
]
