"""Small corpora and the commands run on them."""

import json

from corpusmill.commands import cli


def command(*arguments):
    """Runs a command in this process and returns its exit code."""
    return cli.main([str(argument) for argument in arguments])


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def tokenize(source, output, *more):
    return command("tokenize", "--input", source, "--tokenizer", "bytes", "--output", output, *more)
