"""How a job is run: here, on an engine or on Dataflow, and the workers that do it."""
