"""raygrad tells you which training examples matter."""

__version__ = "0.1.0"
