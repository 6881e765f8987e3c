"""Wrong implementations beside the named misconceptions; none may get full points."""
