"""Figures of the page of an audit, as tests look at them."""

from __future__ import annotations

from typing import Any


def figure(page: Any, name: str) -> Any:
    """A figure, scrolled into view and drawn."""
    found = page.locator(f"[data-figure={name}]")
    found.scroll_into_view_if_needed()
    found.locator(".plot .main-svg").first.wait_for(state="attached")
    return found
