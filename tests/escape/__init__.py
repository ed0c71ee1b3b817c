"""Ways out of a run, tried from inside a real one."""
