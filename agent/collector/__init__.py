"""Where records of all hosts go: service, store, queries (layer 4)."""
