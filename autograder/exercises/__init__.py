"""The exercises, one module per chapter: cases and misconceptions, never a solution."""
