"""A module that draws from Ray's generator of names while it is imported."""

from raygrad.engine.ray_private import drawn_id

DRAWN = drawn_id()
