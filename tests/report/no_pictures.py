"""Reports whose figures are drawn but not written as pictures, which is most of their time."""

import contextlib

import pytest


@contextlib.contextmanager
def no_pictures():
    """Reports that this process writes in the context hold all but what pictures show."""
    import raygrad.report.report as written
    from raygrad.report.style import WIDE, Rendered, drawing

    def render(draw, phone=True):
        with drawing():
            figure = draw(WIDE)
            figure.set_layout_engine(None)
            figure.draw_without_rendering()
        return Rendered(b"", "<svg></svg>", "<svg></svg>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "render", render)
        yield
