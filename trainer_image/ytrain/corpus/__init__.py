"""Scores a corpus with a model that is not changed: what is probably wrong, hard, repeated or odd, record by record."""
