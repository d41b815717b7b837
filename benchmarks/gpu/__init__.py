"""Everything that needs a GPU, in one command of eight minutes."""
