"""The page of `corpusmill report`: numbers are gathered, drawn, and put on it."""
