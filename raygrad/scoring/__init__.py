"""Per-example gradient norms and scores, in torch alone."""
