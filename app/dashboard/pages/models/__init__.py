"""The models: the list, uploading, and a page a tab of one model."""
