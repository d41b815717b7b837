import collections
import itertools
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from corpusmill.corpus import tokens as tokens_files
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import DataError, DatasetError, UsageError
from corpusmill.trainer.batches import IGNORED
from corpusmill.trainer.data import Loader, TokenDataset
from corpusmill.trainer.order import DataOptions, times_read
from tests.integration.samples import documents_of
from tests.trainer import samples

# Row groups shorter than a sequence, of one token, and of many sequences.
SIZES = [[40, 3, 90], [1, 64], [130, 8, 8, 50], [77]]
OPTIONS = DataOptions(batch_size=3, length=8, seed=5, lanes=4)


@pytest.fixture(scope="module")
def files():
    return samples.random_files(0, SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, files):
    return samples.write_tokens(tmp_path_factory.mktemp("data") / "tokens", files)


@pytest.fixture(scope="module")
def targets(tmp_path_factory, files, folder):
    return samples.write_targets(tmp_path_factory.mktemp("data") / "targets", files, folder)


def unpacked(batch):
    """The sequences of a batch in the form of `samples.sequences_of`."""
    return [
        (tuple(read), tuple(None if token == IGNORED else token for token in predicted), size)
        for read, predicted, size in zip(
            batch.tokens.tolist(), batch.next_tokens.tolist(), batch.bytes.tolist(), strict=True
        )
    ]


def all_sequences(batches):
    return [sequence for batch in batches for sequence in unpacked(batch)]


def assert_same(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for first, second in zip(found, expected, strict=True):
        for one, other in zip(first, second, strict=True):
            assert one is other or torch.equal(one, other)


def interleaved(*shares):
    """Batches of the ranks 0, 1, ... in the order of training steps."""
    rounds = itertools.zip_longest(*shares)
    return [batch for round_ in rounds for batch in round_ if batch is not None]


def ranks_of(folder, ranks, *, state=None, workers=None, epochs=1, options=OPTIONS, targets=None):
    """All ranks' batches, in the order of training steps."""
    shares = []
    for rank in range(ranks):
        dataset = TokenDataset(folder, options, targets, rank=rank, ranks=ranks, epochs=epochs)
        loader = dataset if workers is None else Loader(dataset, workers)
        if state:
            loader.load_state_dict(state)
        shares.append(loader)
    return interleaved(*shares)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(1, 6),
    st.sampled_from([None, 1, 2, 3, 20]),
    st.integers(1, 4),
)
def test_an_epoch_is_every_sequence_once(tmp_path_factory, sizes, length, batch_size, lanes, pool):
    files = samples.random_files(1, sizes)
    folder = samples.write_tokens(tmp_path_factory.mktemp("data") / "tokens", files)
    options = DataOptions(batch_size, length, lanes=lanes, pool=pool)
    expected = samples.sequences_of(files, length)
    batches = list(TokenDataset(folder, options, epochs=2))
    found = all_sequences(batches)
    for epoch in found[: len(expected)], found[len(expected) :]:
        assert collections.Counter(epoch) == collections.Counter(expected)
    assert all(1 <= len(batch.tokens) <= batch_size for batch in batches)
    in_order = DataOptions(batch_size, length, shuffle=False, pool=pool)
    assert all_sequences(TokenDataset(folder, in_order, epochs=1)) == expected


def test_shapes_and_types(folder, targets):
    batch = next(iter(TokenDataset(folder, OPTIONS, targets)))
    assert (batch.target_offsets, batch.places) == (None, None)
    assert {
        name: (value.dtype, value.shape)
        for name, value in batch._asdict().items()
        if value is not None
    } == {
        "tokens": (torch.int64, (3, 8)),
        "next_tokens": (torch.int64, (3, 8)),
        "target_tokens": (torch.int32, (3, 8, samples.SLOTS)),
        "target_weights": (torch.float32, (3, 8, samples.SLOTS)),
        "bytes": (torch.int64, (3,)),
    }


def test_each_position_has_the_target_of_its_token(folder, targets):
    for batch in TokenDataset(folder, OPTIONS, targets, epochs=1):
        positions = zip(
            batch.next_tokens.flatten().tolist(),
            batch.target_tokens.flatten(0, 1).tolist(),
            batch.target_weights.flatten(0, 1).tolist(),
            strict=True,
        )
        for token, found_tokens, found_weights in positions:
            zeros = [0] * samples.SLOTS
            tokens, weights = (zeros, zeros) if token == IGNORED else samples.target(token)
            assert found_tokens == tokens
            assert found_weights == pytest.approx([weight / 65535 for weight in weights])


def test_targets_do_not_change_the_order(folder, targets):
    with_targets = TokenDataset(folder, OPTIONS, targets, epochs=1)
    without = TokenDataset(folder, OPTIONS, epochs=1)
    assert all_sequences(with_targets) == all_sequences(without)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 4), (2, 2), (3, 1), (3, 4)])
def test_ranks_and_workers_share_one_order(folder, targets, workers, ranks):
    expected = TokenDataset(folder, OPTIONS, targets, epochs=2)
    found = ranks_of(folder, ranks, workers=workers, epochs=2, targets=targets)
    assert_same(found, expected)


def test_a_plain_data_loader_delivers_the_same(folder):
    dataset = TokenDataset(folder, OPTIONS, epochs=1)
    assert_same(DataLoader(dataset, batch_size=None, num_workers=2), list(dataset))


def test_resumes_at_every_position(folder, targets):
    dataset = TokenDataset(folder, OPTIONS, targets, epochs=2)
    batches, states = [], [dataset.state_dict()]
    for batch in dataset:
        batches.append(batch)
        states.append(dataset.state_dict())
    for position, state in enumerate(states):
        ranks = 1 + position % 3
        found = ranks_of(folder, ranks, state=state, epochs=2, targets=targets)
        assert_same(found, batches[position:])


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 3), (3, 1)])
def test_the_state_is_the_consumers_whatever_workers_hold_ready(folder, ranks, workers):
    expected = list(TokenDataset(folder, OPTIONS, epochs=2))
    loaders = [
        Loader(TokenDataset(folder, OPTIONS, rank=rank, ranks=ranks, epochs=2), workers)
        for rank in range(ranks)
    ]
    shares = [itertools.islice(loader, 5) for loader in loaders]
    found = interleaved(*map(list, shares))
    [state] = {str(loader.state_dict()): loader.state_dict() for loader in loaders}.values()
    found += ranks_of(folder, 4 - ranks, state=state, workers=workers + 1, epochs=2)
    assert_same(found, expected)


def test_each_iteration_begins_where_the_state_was_loaded(folder):
    dataset = TokenDataset(folder, OPTIONS, epochs=1)
    batches = list(dataset)
    assert_same(dataset, batches)
    next(iterator := iter(dataset))
    dataset.load_state_dict(dataset.state_dict())
    assert_same(dataset, batches[1:])
    assert_same(iterator, batches[1:])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epochs", [1, 2])
def test_at_the_end_all_ranks_have_the_same_state(folder, epochs, workers):
    total = len(list(TokenDataset(folder, OPTIONS, epochs=epochs)))
    following = list(TokenDataset(folder, OPTIONS, epochs=epochs + 1))[total:]
    for ranks in (1, 2, 3, 4, 7):
        if workers and ranks > 2:
            continue
        for rank in range(ranks):
            dataset = TokenDataset(folder, OPTIONS, rank=rank, ranks=ranks, epochs=epochs)
            loader = Loader(dataset, workers)
            for _ in loader:
                assert loader.state_dict()["batch"] <= total
            assert loader.state_dict()["batch"] == total
        more = TokenDataset(folder, OPTIONS, epochs=epochs + 1)
        more.load_state_dict(dataset.state_dict())
        assert_same(more, following)


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_passes_after_a_resumed_one_are_whole(folder, workers):
    def reader():
        dataset = TokenDataset(folder, OPTIONS, epochs=1)
        return dataset if workers is None else Loader(dataset, workers)

    whole = list(reader())
    loader = reader()
    state = [loader.state_dict() for _ in itertools.islice(loader, len(whole) - 3)][-1]
    for read in (0, 3):
        # Also where the first pass is given up.
        loader = reader()
        loader.load_state_dict(state)
        assert_same(itertools.islice(loader, read), whole[-3:][:read])
        for _ in range(2 if read else 0):
            assert_same(loader, whole)
            assert loader.state_dict()["batch"] == len(whole)
    loader = reader()
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    assert [len(list(loader)) for _ in range(3)] == [3, len(whole), len(whole)]
    # A state of the end: nothing is left of this pass, all of the next.
    loader.load_state_dict(loader.state_dict())
    assert [len(list(loader)) for _ in range(2)] == [0, len(whole)]


def test_epochs_and_seeds_differ_in_order(folder):
    sequences = all_sequences(TokenDataset(folder, OPTIONS, epochs=2))
    half = len(sequences) // 2
    other = DataOptions(batch_size=3, length=8, seed=6, lanes=4)
    orders = [
        sequences[:half],
        sequences[half:],
        all_sequences(TokenDataset(folder, other, epochs=1)),
    ]
    assert len({str(order) for order in orders}) == 3


def test_the_order_is_the_same_in_every_version(folder):
    # A checkpoint's position is worth nothing once the order has changed.
    batches = itertools.islice(TokenDataset(folder, OPTIONS), 6)
    assert [batch.next_tokens[:, 0].tolist() for batch in batches] == [
        [0, 627, 777],
        [0, 818, 112],
        [693, 320, 590],
        [832, 598, 73],
        [941, 257, 318],
        [842, 283, 990],
    ]


def test_readers_keep_to_their_lanes(folder):
    options = DataOptions(batch_size=1, length=8, lanes=6)
    dataset = TokenDataset(folder, options, epochs=1)
    lanes_of = [
        {
            piece.pool.lane
            for pieces in itertools.islice(dataset._pieces(reader, 6), 3)
            for piece in pieces
        }
        for reader in range(6)
    ]
    assert lanes_of == [{0}, {1}, {2}, {3}, {4}, {5}]


@pytest.mark.parametrize("readers", [1, 2, 3, 4, 6, 8, 12])
def test_how_often_a_row_group_is_read(tmp_path, readers):
    files = [[[samples.row([1] * 31 + [samples.END])] for _ in range(6)] for _ in range(4)]
    folder = samples.write_tokens(tmp_path / "tokens", files)
    dataset = TokenDataset(folder, DataOptions(batch_size=1, length=8, lanes=4), epochs=1)
    read = collections.Counter()
    for reader in range(readers):
        pieces = itertools.chain(*dataset._pieces(reader, readers))
        read.update({int(group) for piece in pieces for group in piece.groups})
    assert read == dict.fromkeys(range(24), times_read(dataset.lanes, readers))


def test_lanes_of_equal_row_groups_are_equally_long(tmp_path):
    files = [[[samples.row([1] * 15 + [samples.END])] for _ in range(6)] for _ in range(4)]
    folder = samples.write_tokens(tmp_path / "tokens", files)
    options = DataOptions(batch_size=1, length=8, lanes=4)
    pieces = TokenDataset(folder, options, epochs=1)._pieces(0, 1)
    assert [piece.pool.lane for [piece] in pieces] == [0, 1, 2, 3] * 12


def test_resuming_does_not_read_what_was_passed(tmp_path, files):
    folder = samples.write_tokens(tmp_path / "tokens", files)
    options = DataOptions(batch_size=3, length=8, shuffle=False, pool=1)
    expected = list(TokenDataset(folder, options, epochs=1))
    dataset = TokenDataset(folder, options, epochs=1)
    dataset.load_state_dict(dataset.state_dict() | {"batch": len(expected) - 3})
    for path in sorted(Path(folder).glob("*.parquet"))[:-1]:
        path.unlink()
    assert_same(dataset, expected[-3:])


def test_a_long_document_takes_several_rows(tmp_path):
    row_tokens = tokens_files.MAX_ROW_TOKENS
    document = np.arange(2 * row_tokens + 5) % 999 + 1
    document[-1] = samples.END
    pieces = np.split(document, [row_tokens, 2 * row_tokens])
    rows = [[samples.row(piece)] for piece in pieces[:2]]
    rows.append([samples.row(pieces[2], byte_length=7_000_000), samples.row([samples.END], 0)])
    folder = samples.write_tokens(tmp_path / "tokens", [rows])
    options = DataOptions(batch_size=16, length=1000, shuffle=False)
    batches = list(TokenDataset(folder, options, epochs=1))
    predicted = torch.cat([batch.next_tokens for batch in batches]).flatten()
    assert predicted[predicted != IGNORED].tolist() == [*document, samples.END]
    sizes = torch.cat([batch.bytes for batch in batches])
    assert sizes.tolist() == [0] * (len(sizes) - 1) + [7_000_000]


def test_wide_ids(tmp_path, monkeypatch):
    monkeypatch.setitem(samples.TOKENIZER, "vocabulary_size", 1 << 20)
    files = [[[samples.row([70_000, 5, samples.END], 4)]]]
    folder = samples.write_tokens(tmp_path / "tokens", files, np.uint32)
    options = DataOptions(batch_size=2, length=4)
    [batch] = TokenDataset(folder, options, epochs=1)
    assert unpacked(batch) == samples.sequences_of(files, 4)


def test_datasets_at_urls(folder, targets):
    memory = fsspec.filesystem("memory")
    for name, source in (("tokens", folder), ("targets", targets)):
        memory.put(f"{source}/", f"/loader/{name}/", recursive=True)
    urls = "memory://loader/tokens", OPTIONS, "memory://loader/targets"
    assert_same(TokenDataset(*urls, epochs=1), TokenDataset(folder, OPTIONS, targets, epochs=1))


def test_tokens_that_the_tokenize_command_wrote():
    folder = Path(__file__).parents[1] / "golden" / "tokens"
    options = DataOptions(batch_size=4, length=16, shuffle=False)
    batches = list(TokenDataset(str(folder), options, epochs=1))
    predicted = [
        token for _, row, _ in all_sequences(batches) for token in row if token is not None
    ]
    assert predicted == [token for document in documents_of(folder) for token in document]
    counters = read_manifest(str(folder)).counters
    assert sum(int(batch.bytes.sum()) for batch in batches) == counters["text_bytes"]


def test_iterating_leaves_the_generator_of_torch_alone(folder):
    before = torch.get_rng_state()
    for workers in (0, 1):
        assert list(Loader(TokenDataset(folder, OPTIONS, epochs=1), workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; 1 or more"),
        ({"length": -1}, "length is -1"),
        ({"seed": -1}, "seed is -1; 0 or more"),
        ({"lanes": 0}, "lanes is 0"),
        ({"pool": 0}, "pool is 0"),
        ({"shuffle": False, "lanes": 2}, "without shuffling there is one lane"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UsageError, match=message):
        DataOptions(**{"batch_size": 2, "length": 8} | options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2, "ranks": 2}, "rank is 2 of 2; 0 to 1"),
        ({"rank": -1}, "rank is -1"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_bad_arguments(folder, arguments, message):
    with pytest.raises(UsageError, match=message):
        TokenDataset(folder, OPTIONS, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 9}, "length: 8 there, 9 now"),
        ({"seed": 6}, "seed: 5 there, 6 now"),
        ({"lanes": None}, "lanes: 4 there, 8 now"),
    ],
)
def test_a_state_with_other_options_is_refused(folder, change, message):
    state = TokenDataset(folder, OPTIONS).state_dict()
    other = DataOptions(**{"batch_size": 3, "length": 8, "seed": 5, "lanes": 4} | change)
    with pytest.raises(UsageError, match=message):
        TokenDataset(folder, other).load_state_dict(state)


def test_a_state_of_other_data_is_refused(tmp_path, folder, files, targets):
    state = TokenDataset(folder, OPTIONS, targets).state_dict()
    other = samples.write_tokens(tmp_path / "other", files[1:])
    for dataset in TokenDataset(other, OPTIONS), TokenDataset(folder, OPTIONS):
        with pytest.raises(UsageError, match=r"targets: .* there, null now"):
            dataset.load_state_dict(state)


def test_targets_of_other_tokens_are_refused(tmp_path, files, folder):
    targets = samples.write_targets(tmp_path / "targets", files, folder, "0" * 64)
    with pytest.raises(DatasetError, match="were made from other tokens"):
        TokenDataset(folder, OPTIONS, targets)
    with pytest.raises(DatasetError, match="is a dataset of kind tokens; kind targets is needed"):
        TokenDataset(folder, OPTIONS, folder)


def test_a_dataset_without_tokens_is_refused(tmp_path):
    folder = samples.write_tokens(tmp_path / "tokens", [])
    with pytest.raises(DatasetError, match="has no tokens"):
        TokenDataset(folder, OPTIONS)


@pytest.fixture
def copies(tmp_path, folder, targets):
    """Copies of the datasets, to be damaged."""
    return [
        Path(shutil.copytree(source, tmp_path / Path(source).name)) for source in (folder, targets)
    ]


NAME = "part-00002-of-00004.parquet"


@pytest.mark.parametrize("keep", [None, 0, 100, -5])
def test_a_missing_or_cut_file_is_named_at_once(copies, keep):
    path = copies[0] / NAME
    data = path.read_bytes()
    path.unlink() if keep is None else path.write_bytes(data[:keep])
    with pytest.raises(DataError, match=NAME):
        TokenDataset(str(copies[0]), OPTIONS)


def test_another_file_under_the_name_is_noticed(copies):
    shutil.copy(copies[0] / "part-00000-of-00004.parquet", copies[0] / NAME)
    with pytest.raises(DataError, match=f"{NAME} has 133 tokens, its manifest says 196"):
        TokenDataset(str(copies[0]), OPTIONS)
    shutil.copy(copies[1] / NAME, copies[0] / NAME)
    with pytest.raises(DataError, match=NAME):
        TokenDataset(str(copies[0]), OPTIONS)


# A file of tokens, of positions, of heads.
FILES = [(0, NAME), (1, NAME), (1, f"heads/{NAME}")]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("which", "name"), FILES)
def test_damage_is_one_line_that_names_the_file(copies, which, name, workers):
    path = copies[which] / name
    last_column = pq.read_metadata(path).row_group(0).column(1)
    with path.open("r+b") as file:
        file.seek(last_column.data_page_offset)
        file.write(b"\xff" * last_column.total_compressed_size)
    dataset = TokenDataset(str(copies[0]), OPTIONS, str(copies[1]), epochs=1)
    with pytest.raises(DataError, match=NAME) as raised:
        list(Loader(dataset, workers))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("which", "name"), FILES[:2])
def test_a_flipped_bit_is_never_read_as_other_data(copies, which, name):
    """Wherever it is; in the footer it may be in what nobody reads."""
    path = copies[which] / name
    data = path.read_bytes()
    generator = np.random.default_rng(0)
    whole = _read(copies)
    messages = []
    for place in generator.integers(0, len(data), 60).tolist():
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        found = _read(copies)
        if isinstance(found, str):
            messages.append(found)
        else:
            assert_same(found, whole)
    assert len(messages) > 30
    assert all(NAME in message and "\n" not in message for message in messages)


def _read(copies):
    """All batches, or the error instead."""
    try:
        return list(TokenDataset(str(copies[0]), OPTIONS, str(copies[1]), epochs=1))
    except (DataError, DatasetError) as error:
        return str(error)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (NAME, "was made for another file of tokens"),
        (f"heads/{NAME}", "has the heads of other targets"),
    ],
)
def test_targets_of_another_file_are_noticed(copies, name, message):
    shutil.copy(copies[1] / name.replace("00002", "00001"), copies[1] / name)
    dataset = TokenDataset(str(copies[0]), OPTIONS, str(copies[1]), epochs=1)
    with pytest.raises(DataError, match=f"{NAME} {message}"):
        list(dataset)


def test_ids_outside_the_vocabulary_are_named(tmp_path):
    files = [[[samples.row([5, samples.VOCABULARY, samples.END], 4)]]]
    folder = samples.write_tokens(tmp_path / "tokens", files)
    with pytest.raises(DataError, match=r"part-00000.* id 1000 at position .* vocabulary of 1000"):
        list(TokenDataset(folder, OPTIONS, epochs=1))
