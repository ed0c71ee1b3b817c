"""The nouns: frozen slotted dataclasses and enums, standard library only (layer 0)."""
