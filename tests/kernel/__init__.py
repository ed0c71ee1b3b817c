"""Tests of the kernel plane: root, real programs, real packets."""
