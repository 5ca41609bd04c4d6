"""Links to our own resources, as a client behind a path-stripping proxy has to follow them."""

from __future__ import annotations

from app.control.context import ControlContext


def location_of(context: ControlContext, path: str) -> str:
    """`path`, which begins with /api, under MODELPORT_ROOT_PATH."""
    return context.settings.web.root_path + path
