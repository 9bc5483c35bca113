"""Label Studio as the backend reaches it: its API, and the store of one project in it."""
