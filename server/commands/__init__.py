"""One module per group of commands; each imports what computes only when a command runs."""
