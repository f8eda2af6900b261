"""The objects that a job owns: one kind a file, each a function of the job and the settings."""
