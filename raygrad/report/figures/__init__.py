"""The figures of the report, one a module: numbers first, then the drawing of them."""
