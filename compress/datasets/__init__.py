"""Datasets of ids: written from text, sampled and measured."""
