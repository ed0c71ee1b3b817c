"""The append-only record of a host: segments on disk, hash chained, group committed (layer 3)."""
