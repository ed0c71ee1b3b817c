"""Signatures of AWS (SigV4) and its streamed payloads; no input, no output, no clock."""
