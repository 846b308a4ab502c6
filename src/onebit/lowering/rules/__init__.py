"""Lowering rules, one file a kind of operation; `onebit.lowering.lower` says what a rule is."""
