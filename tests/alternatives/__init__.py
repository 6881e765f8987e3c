"""Right implementations, written differently from the solutions; each must get full points."""
