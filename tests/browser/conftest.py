from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from alignfirst.report import build

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@dataclass
class Tab:
    """A page and everything that it did besides showing itself."""

    page: Page
    complaints: list[str] = field(default_factory=list)  # console errors and warnings, uncaught errors, dialogs
    requests: list[str] = field(default_factory=list)  # other than the file itself


Opener = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="browser tests need the playwright package")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("browser tests need Chromium (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--headless"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def report(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of ordinary size, smaller in seeds."""
    spec = synthetic.Spec(seeds=8, algorithms=("reinforce", "grpo", "dpo-offline", "best-of-n"))
    return Path(build(synthetic.write(tmp_path_factory.mktemp("browser") / "mog", spec)))


@pytest.fixture(scope="session")
def text_report(synthetic: ModuleType, of_text: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of text with three prompts, every probability exact."""
    spec = synthetic.Spec(name="grammar", seeds=5, algorithms=("grpo", "dpo-offline"), betas=(0.1, 0.3))
    return Path(build(synthetic.write(tmp_path_factory.mktemp("browser") / "text", spec, of_text.TextSpec())))


@pytest.fixture
def open_tab(browser: Browser) -> Opener:
    """Open a report: `with open_tab(path, width=390) as tab`. Leaving it checks that the page kept to itself."""

    @contextmanager
    def opened(path: Path, *, width: int = 1440, scheme: str = "light", scale: float = 1) -> Iterator[Tab]:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            device_scale_factor=scale,  # type: ignore[arg-type]
        )
        context.set_default_timeout(120_000)  # milliseconds: others may be at work on the same machine
        tab = Tab(context.new_page())
        watch(tab, path)
        tab.page.goto(path.as_uri())
        yield tab
        assert tab.complaints == []
        assert tab.requests == []
        context.close()

    return opened


def watch(tab: Tab, path: Path) -> None:
    page = tab.page
    page.on("console", lambda m: tab.complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: tab.complaints.append(str(e)))
    page.on("request", lambda r: tab.requests.append(r.url[:200]) if r.url != path.as_uri() else None)

    def refuse(dialog: Any) -> None:
        tab.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
