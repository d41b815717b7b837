"""The Beam pipelines, one module each with build_pipeline() and main(), and the command line."""
