"""The only writer of the spool, and the uplink to the collector (layer 4)."""
