"""The Program under construction, and what a rule sees of it."""
