"""Where hosts send their records: ingest, enrolment, store, queries (layer 4)."""
