import json
from pathlib import Path

import numpy as np
import pytest

from cdal.cli import main

EYE = np.array([[[0.9, 0.1], [0, 0]], [[0.2, 0.8], [0, 0]], [[0.9, 0.1], [0.3, 0.7]]])
PRESENT = np.array([[True, False], [True, False], [True, True]])
GOOD = {"mixtures": EYE, "present": PRESENT, "labelled": np.array([True, False, False])}


@pytest.fixture
def pool_file(tmp_path):
    def write(**changes) -> Path:
        arrays = {k: v for k, v in (GOOD | changes).items() if v is not None}
        np.savez(tmp_path / "pool.npz", **arrays)
        return tmp_path / "pool.npz"

    return write


def select(path, *arguments):
    return main(["select", str(path), "--selector", "cdal-cs", *map(str, arguments)])


def test_picks_one_a_line_in_order(pool_file, capsys):
    # From image 0: image 1 differs in the class they share, 2 is the same there and has one more.
    assert select(pool_file(), "--budget", 2) == 0
    assert capsys.readouterr().out == "1\n2\n"


def test_json(pool_file, capsys):
    assert select(pool_file(), "--budget", 1, "--option", "missing=skip", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["selector"] == "cdal-cs"
    (pick,) = result["picks"]
    assert pick["index"] == 1
    # ½ · 0.7 · (ln(0.9/0.2) + ln(0.8/0.1))
    assert pick["score"] == pytest.approx(0.35 * np.log(36), rel=1e-6)
    assert pick["reason"] == {"nearest": 0, "classes": {"0": pytest.approx(1)}}
    (warning,) = result["warnings"]
    assert warning.startswith("At least 50%")


def test_warnings_do_not_mix_with_the_picks(pool_file, capsys):
    assert select(pool_file(), "--budget", 1, "--option", "missing=skip") == 0
    out, err = capsys.readouterr()
    assert out == "1\n"
    assert err.startswith("cdal select: At least 50%")


def test_labelled_rows_add_to_those_of_the_file(pool_file, capsys, tmp_path):
    assert select(pool_file(), "--budget", 1, "--labelled", "1") == 0
    assert capsys.readouterr().out == "2\n"
    (tmp_path / "rows.txt").write_text("1\n")
    assert select(pool_file(), "--budget", 1, "--labelled", tmp_path / "rows.txt") == 0
    assert capsys.readouterr().out == "2\n"
    assert select(pool_file(labelled=None), "--budget", 1, "--labelled", "0,1") == 0
    assert capsys.readouterr().out == "2\n"


def test_a_list_of_labelled_rows_may_be_longer_than_the_name_of_a_file(pool_file, capsys):
    rows = ",".join(["0", "1"] * 3000)
    assert select(pool_file(labelled=None), "--budget", 1, "--labelled", rows) == 0
    assert capsys.readouterr().out == "2\n"


def test_other_types_and_other_arrays_are_taken(pool_file, capsys):
    path = pool_file(
        mixtures=EYE.astype(np.float16),
        region_counts=np.array([[3, 0], [2, 0], [1, 1]], dtype=np.uint8),
        names=np.array(["a", "b", "c"]),
    )
    assert select(path, "--budget", 2) == 0
    assert capsys.readouterr().out == "1\n2\n"


def test_the_same_seed_gives_the_same_picks(pool_file, capsys):
    outputs = []
    for seed in (4, 4):
        path = pool_file(labelled=None)
        assert main(["select", str(path), "--selector", "random", "--budget", "3",
                     "--seed", str(seed)]) == 0  # fmt: skip
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


NAN = EYE.copy()
NAN[1, 0] = np.nan
HALF = EYE.copy()
HALF[2, 1] /= 2


@pytest.mark.parametrize(
    ("changes", "arguments", "sentence"),
    [
        ({"mixtures": None}, (), "{path} has no array mixtures"),
        ({}, ("--device", "meta"), "the device meta is not available"),
        ({}, ("--device", "hpu"), "the device hpu is not available"),
        ({"present": None}, (), "{path} has no array present"),
        ({"mixtures": EYE[:, :, :1]}, (), "mixtures must have the shape (N, C, C) or (N, 1, C), "
         "not (3, 2, 1)"),
        ({"present": PRESENT[:2]}, (), "present must have the shape (3, 2) to agree with mixtures "
         "(3, 2, 2), not (2, 2)"),
        ({"mixtures": NAN}, (), "mixtures has NaN or infinity in image 1"),
        ({"mixtures": HALF}, (), "mixtures[2][1] sums to 0.5, not to 1, since present is true"),
        ({"mixtures": -EYE}, (), "mixtures is negative in image 0"),
        ({"present": PRESENT.astype(int)}, (), "present must be bool, not int64"),
        ({"mixtures": EYE.astype(complex)}, (), "mixtures must be float32, not complex128"),
        ({"mixtures": np.float32(1)}, (), "mixtures must have the shape (N, C, C) or (N, 1, C), "
         "not ()"),
        ({"features": np.array([{}, {}, {}])}, (), "features cannot be read"),
        ({}, ("--budget", 3), "the budget must be from 0 to 2, the number of unlabelled images, "
         "not 3"),
        ({}, ("--budget", -1), "the budget must be from 0 to 2, the number of unlabelled images, "
         "not -1"),
        ({}, ("--seed", -1), "the seed must be at least 0, not -1"),
        ({}, ("--labelled", "0,x"), "--labelled: 'x' is neither"),
        ({}, ("--labelled", "7"), "--labelled: there is no row 7: the pool has 3 images"),
        ({}, ("--option", "missing"), "--option must be name=value, not 'missing'"),
        ({}, ("--option", "x=1"), 'cdal-cs has no option "x"; its only option is "missing"'),
        ({}, ("--option", "missing=x"), 'option "missing" of cdal-cs must be "skip" or '
        '"uniform", not "x"'),
        ({}, ("--selector", "core-set"), "features is missing: the selector core-set needs it"),
        ({}, ("--selector", "random", "--device", "none"), "the device none is not available"),
    ],
)  # fmt: skip
def test_what_is_wrong_gets_one_sentence_and_exit_2(
    pool_file, capsys, changes, arguments, sentence
):
    path = pool_file(**changes)
    assert select(path, "--budget", 1, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"cdal select: {sentence.format(path=path)}")
    assert err.count("\n") == 1


def test_a_file_of_rows_that_is_not_text_is_named(pool_file, capsys):
    path = pool_file()
    assert select(path, "--budget", 1, "--labelled", path) == 2
    said = capsys.readouterr().err
    assert said == f"cdal select: --labelled: {path} is not a text file of row numbers\n"


def test_an_array_that_is_damaged_is_named(pool_file, capsys):
    path = pool_file()
    data = bytearray(path.read_bytes())
    data[data.index(b"mixtures.npy") + 200] ^= 255
    path.write_bytes(data)
    assert select(path, "--budget", 1) == 2
    assert capsys.readouterr().err.startswith("cdal select: mixtures cannot be read")


@pytest.mark.parametrize(
    ("local", "central", "value"),
    [
        (8, 10, 99),  # a compression that zipfile does not know
        (6, 8, 1),  # encrypted
        (4, 6, 154),  # a version of the format that there is not
    ],
)
def test_an_archive_that_cannot_be_unpacked_is_refused(pool_file, capsys, local, central, value):
    path = pool_file()
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = data.find(mark)
        while start >= 0:
            data[start + place : start + place + 2] = value.to_bytes(2, "little")
            start = data.find(mark, start + 1)
    path.write_bytes(data)
    assert select(path, "--budget", 1) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_array_that_no_memory_can_hold_is_named(pool_file, capsys, monkeypatch):
    def load(self, name):
        raise MemoryError

    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", load)
    assert select(pool_file(), "--budget", 1) == 2
    assert "mixtures is larger than the memory" in capsys.readouterr().err


def test_an_unknown_selector_gets_the_known_ones(pool_file, capsys):
    assert select(pool_file(), "--budget", 1, "--selector", "best") == 2
    assert (
        'unknown selector "best"; choose one of badge, bald, cd-greedy' in capsys.readouterr().err
    )


def test_files_that_are_no_pool(tmp_path, capsys):
    text, array, cut = tmp_path / "a.txt", tmp_path / "b.npy", tmp_path / "c.npz"
    text.write_text("no pool")
    np.save(array, EYE)
    np.savez(cut, **GOOD)
    cut.write_bytes(cut.read_bytes()[:400])
    for path, sentence in (
        (text, f"{text} is not an .npz file"),
        (array, f"{array} is a single array, not an .npz file of named arrays"),
        (cut, f"{cut} is not an .npz file"),
        (tmp_path / "none.npz", f"{tmp_path / 'none.npz'} does not exist"),
        (tmp_path, f"{tmp_path} cannot be read: Is a directory"),
    ):
        assert select(path, "--budget", 1) == 2
        assert capsys.readouterr().err == f"cdal select: {sentence}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["select"], ["select", "x", "--budget", "y"]]
)
def test_a_wrong_call_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: cdal" in capsys.readouterr().err


def test_only_some_classes_count(pool_file, capsys):
    # Class 1 is in image 2 alone, so that one differs from the labelled image 0.
    assert select(pool_file(), "--budget", 1, "--classes", "1") == 0
    assert capsys.readouterr().out == "2\n"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("2", "there is no class 2: the pool's are 0 to 1"),
        ("car", "must be indices"),
        (" ", "must"),
    ],
)
def test_classes_that_are_not_in_the_pool_are_refused(pool_file, capsys, classes, message):
    assert select(pool_file(), "--budget", 1, "--classes", classes) == 2
    assert message in capsys.readouterr().err
