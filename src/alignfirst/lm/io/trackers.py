"""Trackers (tensorboard, wandb, ...) that watch trainings: accelerate's and TRL's own, by name, off unless asked for.

A tracker is told what the curves hold and can change nothing: one that fails is left, and the training goes on. Which
are wanted stands in the environment, for it is no part of what a study computes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from alignfirst import process_environment
from alignfirst.errors import InputError, shorten
from alignfirst.extras import need
from alignfirst.lm.training.counters import Log

PROJECT = "alignfirst"
OWN_NAME = {"wandb": "name", "trackio": "name", "swanlab": "experiment_name"}  # of a run within the project

log = logging.getLogger(__name__)


def check(names: Sequence[str]) -> None:
    """Raise InputError for a tracker that is not there."""
    need("accelerate")
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    known = [name for name in LOGGER_TYPE_TO_CLASS if name in INTEGRATION_TO_CALLBACK]
    there = [str(getattr(name, "value", name)) for name in get_available_trackers()]
    for name in names:
        if name not in known:
            raise InputError("a tracker must be one that accelerate and TRL know", name, f"Choose from {known}.")
        if name not in there:
            raise InputError("a tracker's package must be installed", name, "Install it, or leave --report-to out.")


@contextmanager
def tracked(name: str, settings: Mapping[str, Any]) -> Iterator[Log | None]:
    """What a training is to call after every update; None where no tracker is wanted. `name` is the training's."""
    watches = [Watch(kind, name, settings) for kind in process_environment.trackers()]

    def tell(update: int, values: Mapping[str, float | None]) -> None:
        numbers = {key: value for key, value in values.items() if value is not None}
        for watch in watches:
            watch.do(lambda tracker: tracker.log(numbers, step=update))

    try:
        yield tell if watches else None
    finally:
        for watch in watches:
            watch.do(lambda tracker: tracker.finish())


class Watch:
    """One tracker of accelerate's. Whatever it raises ends it, not the training."""

    def __init__(self, kind: str, name: str, settings: Mapping[str, Any]) -> None:
        self.kind, self.tracker = kind, None
        try:
            self.tracker = self._started(name, settings)
        except Exception as e:
            self._left(e)

    def do(self, call: Callable[[Any], Any]) -> None:
        if self.tracker is None:
            return
        try:
            call(self.tracker)
        except Exception as e:
            self._left(e)

    def _started(self, name: str, settings: Mapping[str, Any]) -> Any:
        """As `Accelerator.init_trackers` does it."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        made = LOGGER_TYPE_TO_CLASS[self.kind]
        own = OWN_NAME.get(self.kind)
        project, named = (f"{PROJECT}-{name}", {}) if own is None else (PROJECT, {own: name})
        folder = [process_environment.tracker_folder() or PROJECT] if made.requires_logging_directory else []
        tracker = made(project, *folder, **named)
        tracker.start()
        plain = {k: v if isinstance(v, bool | int | float | str) else json.dumps(v) for k, v in settings.items()}
        tracker.store_init_configuration(plain)
        return tracker

    def _left(self, error: Exception) -> None:
        self.tracker = None
        words = f"{type(error).__name__}: {shorten(str(error), 120)}"
        log.warning("note: the tracker %s is left, the training goes on. %s", self.kind, words)
