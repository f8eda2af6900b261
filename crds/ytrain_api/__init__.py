"""The contract of ytrain."""
