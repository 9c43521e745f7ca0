"""raygrad tells you which training examples matter."""

__version__ = "0.2.0"
