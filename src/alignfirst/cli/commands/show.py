"""`alignfirst show`: every key of a study, as it would be run."""

from __future__ import annotations

import sys

from alignfirst.cli import out
from alignfirst.cli.places import StudyName


def show(
    study: StudyName,
    set_: out.Sets = None,
    json: out.Json = False,
) -> None:
    """Print every key of a study.

    Save it to a file to start your own.
    """
    from alignfirst.study.config import preset_files, yaml_io

    data = preset_files.load(study, set_ or ()).resolved()
    if json:
        out.as_json(data)
    else:
        sys.stdout.write(yaml_io.dumps(data))
