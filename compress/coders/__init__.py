"""Compiled coders, one for each codec of the same name, and what they share."""
