"""Fields of an example -> turns of a conversation."""
