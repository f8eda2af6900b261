"""What is minimised: per-token loss through a chunked head, weighted per token, with optional anchor and teacher."""
