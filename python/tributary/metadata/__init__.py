"""Typed views of the two descriptions of a database; the native module parses and checks both."""

# what the user wrote
from tributary.metadata.description import Description, TaskDescription

# what a processed database says of itself
from tributary.metadata.manifest import (
    ColumnManifest,
    ForeignKeyManifest,
    Manifest,
    TableManifest,
    TaskManifest,
    find_task,
)

__all__ = [
    "ColumnManifest",
    "Description",
    "ForeignKeyManifest",
    "Manifest",
    "TableManifest",
    "TaskDescription",
    "TaskManifest",
    "find_task",
]
