"""What `corpusmill report` is made of: numbers are gathered, drawn, and put on a page."""
