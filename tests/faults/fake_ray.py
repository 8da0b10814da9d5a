"""A stand-in for Ray that computes in this process, and fails as Ray does."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class RuntimeEnvSetupError(RayError):
    pass


class FakeRay:
    """What the pool uses of Ray. `trouble` gets the number of a task and its text, and may raise instead."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, RuntimeEnvSetupError=RuntimeEnvSetupError
    )

    def __init__(self, cpus: float = 2.0, trouble: Callable[[int, str], None] | None = None) -> None:
        self.cpus, self.trouble = cpus, trouble or (lambda number, text: None)
        self.asked: dict[str, Any] = {}
        self.texts: dict[int, str] = {}
        self.most = self.given = self.shut = 0

    def nodes(self) -> list[dict[str, Any]]:
        """One that is dead, and one with the cores."""
        return [{"Alive": cpus > 0, "Resources": {"CPU": abs(cpus), "memory": 1e9}} for cpus in (-64.0, self.cpus)]

    def remote(self, **asked: Any) -> Any:
        self.asked = asked

        def bind(function: Callable[[str], str]) -> SimpleNamespace:
            self.function = function
            return SimpleNamespace(remote=self._submit)

        return bind

    def _submit(self, text: str) -> int:
        self.given += 1
        self.texts[self.given] = text
        self.most = max(self.most, len(self.texts))
        return self.given

    def wait(self, tasks: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        return tasks[-1:], tasks[:-1]

    def get(self, number: int) -> str:
        text = self.texts.pop(number)
        self.trouble(number, text)
        return self.function(text)

    def shutdown(self) -> None:
        self.shut += 1
