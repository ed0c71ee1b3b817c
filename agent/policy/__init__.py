"""The policy: schema, compile, evaluate, explain; pure (layer 1)."""
