"""A user's own pictures: what is taken, how it is split, and what is said of files that are no such pictures."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from t2t_vqem.errors import UserError
from t2t_vqem.problems.image_folder import ImageFolder

SHARES = {"val_share": 0.2, "test_share": 0.2}


def save(path, size=(6, 8), mode="RGB", number=100, **arguments):
    """Writes a picture of (height, width) `size`, all of one number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = Image.new(mode, size[::-1]).getbands()
    Image.new(mode, size[::-1], number if len(bands) == 1 else (number,) * len(bands)).save(path, **arguments)


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of each of two classes, in every format, one of them deeper than the others."""
    root = tmp_path / "pictures"
    for number in range(12):
        suffix = ("png", "jpg", "webp", "bmp")[number % 4]
        save(root / "cats" / f"{number:02d}.{suffix}", number=10 * number)
        save(root / "dogs" / ("deep" if number == 3 else "") / f"{number:02d}.png", number=10 * number + 5)
    (root / "cats" / ".hidden").write_text("no concern of it")
    return root


def samples(root, **arguments):
    problem = ImageFolder(**SHARES | arguments)
    problem.source_dir = str(root)
    return {split: list(problem.samples(split)) for split in problem.splits}, problem


def value(picture, label):
    """The number a picture is made of, a multiple of 5, which JPEG and WebP keep almost, and its label."""
    return 5 * round(picture.mean() / 5), label


def test_classes_and_splits(folder):
    found, problem = samples(folder)
    assert (problem.image_shape, problem.num_classes, problem.label_names) == ((6, 8, 3), 2, ("cats", "dogs"))
    values = {split: {value(*sample) for sample in found[split]} for split in found}
    assert set.union(*values.values()) == {(10 * i + 5 * k, k) for i in range(12) for k in range(2)}
    assert sum(map(len, values.values())) == 24
    assert min(map(len, values.values())) >= 2
    assert len({label for _, label in found["train"][:6]}) == 2  # mixed
    for path in folder.glob("cats/0*"):  # who stays keeps its split
        path.unlink()
    fewer, _ = samples(folder)
    for split, pictures in fewer.items():
        assert {value(*sample) for sample in pictures} <= values[split]


def test_generation_and_again_without_the_pictures(folder, tmp_path):
    manifest = ImageFolder(str(folder), **SHARES).generate(str(tmp_path / "data"))
    assert manifest["image_shape"] == [6, 8, 3]
    assert str(tmp_path) not in str(manifest)
    again = ImageFolder(str(folder), **SHARES)
    assert again.generate(str(tmp_path / "data")) == manifest
    save(folder / "cats" / "new.png")
    with pytest.raises(UserError, match="made from other source files"):
        again = ImageFolder(str(folder), **SHARES).generate(str(tmp_path / "data"))
    with pytest.raises(UserError, match="made with channels=None, not 1"):
        ImageFolder(str(folder), channels=1, **SHARES).generate(str(tmp_path / "data"))
    folder.rename(tmp_path / "elsewhere")
    problem = ImageFolder(str(folder), **SHARES)
    problem.generate(str(tmp_path / "data"))
    assert (problem.image_shape, problem.label_names) == ((6, 8, 3), ("cats", "dogs"))


def test_without_subfolders_there_is_one_class(tmp_path):
    for number in range(20):
        save(tmp_path / "grey" / f"{number}.png", mode="L", number=number)
    found, problem = samples(tmp_path, folder="grey")  # from --source_dir on
    assert (problem.image_shape, problem.num_classes, problem.label_names) == ((6, 8, 1), 1, ())
    assert sorted(int(p[0, 0, 0]) for pictures in found.values() for p, _ in pictures) == list(range(20))
    assert {label for pictures in found.values() for _, label in pictures} == {0}


def text(path):
    path.with_name("notes.txt").write_text("no picture")
    return path.with_name("notes.txt")


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])
    return path


def other_size(path):
    save(path, size=(6, 9))
    return path


def grey(path):
    save(path, mode="L")
    return path


def transparent(path):
    save(path, mode="RGBA")
    return path


def deep(path):
    save(path, mode="I;16")
    return path


def beside(path):
    save(path.parents[1] / "loose.png")
    return path.parents[1] / "loose.png"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (text, "is no picture in PNG, JPEG, WebP or BMP; image_folder.skip_bad = True"),
        (cut, "is a damaged picture"),
        (other_size, "is 6 x 9 pixels where 6 x 8 are wanted"),
        (grey, r"is grey \(1 channel\) where RGB is wanted; image_folder\.channels = 3 converts all"),
        (transparent, r"has the colours RGBA .*; image_folder\.channels = 3 converts all"),
        (deep, "has the colours I;16 where RGB or grey of 8 bits is wanted"),
        (beside, "lies beside the folders of the classes"),
    ],
)
def test_a_file_that_is_no_such_picture_is_named_or_skipped_and_counted(
    folder, tmp_path, caplog, spoil, words
):
    victim = spoil(folder / "dogs" / "04.png")
    with pytest.raises(UserError, match=words) as caught:
        ImageFolder(str(folder), **SHARES).generate(str(tmp_path / "data"))
    assert str(victim) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()
    with caplog.at_level("WARNING", "absl"):
        manifest = ImageFolder(str(folder), skip_bad=True, **SHARES).generate(str(tmp_path / "data"))
    left = 24 if spoil in (text, beside) else 23
    assert sum(entry["examples"] for entry in manifest["splits"].values()) == left
    assert sum(entry["left_out"] for entry in manifest["splits"].values()) == 1
    assert [m for m in caplog.messages if m.endswith("1 files that are no such pictures are left out")]


def test_pictures_are_brought_to_size_and_colour_where_that_is_asked_for(folder):
    wide = np.zeros([10, 40, 3], np.uint8)
    wide[:, 15:25] = 200  # the square in the centre
    Image.fromarray(wide).save(folder / "cats" / "00.png")
    save(folder / "dogs" / "00.png", size=(300, 200), mode="RGBA", number=200)
    found, problem = samples(folder, size=(4, 4), resize=True, channels=1)
    pictures = [p for split in found.values() for p, _ in split]
    assert problem.image_shape == (4, 4, 1)
    assert {p.shape for p in pictures} == {(4, 4, 1)}
    assert sum(p.mean() > 190 for p in pictures) == 2  # black, had the whole been squeezed


def test_a_camera_held_upright_is_believed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for number in range(20):
        save(tmp_path / f"{number}.jpg", size=(6, 8), exif=exif)
    assert samples(tmp_path)[1].image_shape == (8, 6, 3)


def test_folders_that_cannot_be_split_are_refused(folder, tmp_path):
    save(tmp_path / "large" / "a.png", size=(64, 129))
    with pytest.raises(UserError, match=r"a\.png is 64 x 129 pixels; 128 x 128 is the most: .*resize = True"):
        samples(tmp_path / "large", val_share=0.49, test_share=0.49)
    folder.rename(tmp_path / "sets")
    (tmp_path / "sets" / "cats").rename(tmp_path / "sets" / "train")
    (tmp_path / "sets" / "dogs").rename(tmp_path / "sets" / "val")
    with pytest.raises(UserError, match="has the subfolders train, val, but subfolders are classes"):
        samples(tmp_path / "sets")
    with pytest.raises(UserError, match="holds 1 files, none of which falls to the split"):
        samples(tmp_path / "large", size=(4, 4), resize=True, channels=3)
    with pytest.raises(UserError, match="nowhere is no folder"):
        samples(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r'needs the binding image_folder\.folder = "FOLDER", or --source_dir'
    ):
        ImageFolder().generate(str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": (129, 4)}, r"size is \(129, 4\)"),
        ({"size": 32}, "size is 32"),
        ({"channels": 4}, "channels is 4"),
        ({"channels": True}, "channels is True"),
        ({"skip_bad": "False"}, "skip_bad is 'False'"),
        ({"folder": 3}, "folder is 3"),
        ({"resize": True}, "False unless image_folder.size is bound"),
        ({"val_share": 0.0}, "val_share is 0.0"),
        ({"test_share": 1}, "test_share is 1"),
    ],
)
def test_bad_bindings_are_named(arguments, words):
    with pytest.raises(UserError, match=words):
        ImageFolder(**arguments)


def test_links_to_folders_are_followed(folder, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cats", "dogs"):
        pathlib.Path(linked / name).symlink_to(folder / name)
    assert sum(map(len, samples(linked)[0].values())) == 24
