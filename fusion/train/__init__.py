"""Training recipes, one per network; nothing here is imported at run time by the pipeline."""
