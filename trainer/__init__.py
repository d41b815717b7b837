"""Trains and evaluates language models on datasets of tokens and targets; torch lives here."""
