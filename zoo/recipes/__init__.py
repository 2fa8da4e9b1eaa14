"""The recipes that made the weights this package carries."""
