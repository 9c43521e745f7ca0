"""From tables to pictures and one HTML page."""
