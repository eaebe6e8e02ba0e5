"""The database's history, one file a change in `versions/`."""

HEAD = "0019"
"""The newest revision, written here so that a start need not read them all; a test holds it true."""
