"""Files of prompts alone, and of examples of what is wanted."""

from __future__ import annotations

from pathlib import Path

from alignfirst.data.layouts import Layout
from alignfirst.data.pairs import LoadedRows, load_rows


def read_prompts(name: str | Path, limit: int | None = None, layout: Layout | None = None) -> LoadedRows:
    """Rows with `prompt`, text or messages, of any source that `source_of` knows; their answers are empty.

    A repeated prompt counts once; other columns are passed over. With `limit`, only the first so many rows are read.
    Raises InputError where no row is left, with the reasons, StoreError where the file cannot be read.
    """
    return load_rows("prompts", name, limit, layout=layout)


def read_examples(name: str | Path, layout: Layout | None = None) -> LoadedRows:
    """Rows with `prompt` and `response` (or `chosen`), which stands in `chosen`. Raises as `read_prompts` does."""
    return load_rows("examples", name, layout=layout)
