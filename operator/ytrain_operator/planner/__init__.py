"""What a job needs next: one policy a file, each a function of what was observed."""
