"""Images: the sets are what they say, nothing that a file holds is run, augmentation is exact."""

import hashlib
import io
import os
import pickle
import pickletools
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbook import data, images

ROOT = Path(__file__).resolve().parents[1]
JPEGS = ROOT.parent / "shared" / "data" / "cifar10" / "cifar10-jpeg.tar.xz"


def tar(path, members, mode="w:gz"):
    """Write an archive of name -> bytes, in that order."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


# A set of images


def some_images(n=5):
    pixels = torch.arange(n * 2 * 3 * 4, dtype=torch.uint8).reshape(n, 2, 3, 4)
    return images.Images(pixels, torch.arange(n) % 2, ("even", "odd"))


@pytest.mark.parametrize("ids", [torch.tensor([3, 0, 3]), slice(1, 4), slice(0, 0)])
def test_a_part_of_a_set_is_a_set(ids):
    whole = some_images()
    part = whole[ids]
    assert len(part) == len(part.pixels) == len(part.labels)
    assert torch.equal(part.pixels, whole.pixels[ids])
    assert torch.equal(part.labels, whole.labels[ids])
    assert part.classes == whole.classes


def test_one_image_is_taken_as_a_set():
    with pytest.raises(TypeError, match=r"images\[3 : 4\]"):
        some_images()[3]


def test_floats_go_from_0_to_1():
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    floats = images.Images(pixels, torch.tensor([0]), ("x",)).floats()
    assert torch.equal(floats, torch.tensor([[[[0.0, 0.2, 1.0]]]]))
    assert floats.dtype == torch.float32


def test_a_set_shows_its_size_and_not_its_pixels():
    assert repr(some_images()) == "Images(5 of 2 x 3 x 4, classes even, odd)"


@pytest.mark.parametrize(
    ("pixels", "labels", "said"),
    [
        (torch.zeros(2, 1, 3, 3), torch.zeros(2), "torch.float32. Give uint8"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(2), r"\(2, 3, 3\).*\(n, channels"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(3), "2 images.*one label per"),
    ],
)
def test_what_does_not_fit_together_is_no_set(pixels, labels, said):
    with pytest.raises(ValueError, match=said):
        images.Images(pixels, labels, ("a",))


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    found, expected = images.digits(), load_digits()
    assert found.pixels.shape == (1797, 1, 8, 8)
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == expected.target.tolist()
    assert found.classes == tuple("0123456789")
    assert found.pixels.max() == 255
    gray = torch.from_numpy(expected.images)[:, None] / 16
    assert (found.floats() - gray).abs().max() <= 0.5 / 255 + 1e-6


def test_a_grader_loads_scikit_learn_beforehand():
    code = "import sys, workbook.images; assert 'sklearn.datasets' in sys.modules"
    ran = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "WORKBOOK_GRADING": "1"},
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


# CIFAR-10


def as_python_2(pickled):
    """Rewrite a pickle of protocol 3 as Python 2 and its NumPy wrote it: no text, only bytes."""
    out = bytearray()
    parts = list(pickletools.genops(pickled))
    ends = [*(start for _, _, start in parts[1:]), len(pickled)]
    for (opcode, value, start), end in zip(parts, ends, strict=True):
        if opcode.name == "PROTO":
            out += b"\x80\x02"
        elif opcode.name == "GLOBAL":
            out += b"c%s\n%s\n" % tuple(value.replace("_core", "core").encode().split())
        elif opcode.name in ("BINUNICODE", "BINBYTES", "SHORT_BINBYTES"):
            content = value.encode() if isinstance(value, str) else value
            out += b"T" + len(content).to_bytes(4, "little") + content
        elif opcode.name in ("NEWFALSE", "NEWTRUE"):
            out += b"K\x01" if opcode.name == "NEWTRUE" else b"K\x00"
        else:
            out += pickled[start:end]
    return bytes(out)


def as_python_3(pickled):
    return pickled


CLASSES = [b"airplane", b"cat", b"frog"]


def batch(seed, count=2):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {b"batch_label": b"one", b"labels": [seed % 3] * count, b"data": pixels}


def small_cifar10(write=as_python_3, **changes):
    """The members of a small archive of CIFAR-10's form, in the order of the official one."""
    members = {"batches.meta": {b"num_vis": 3072, b"label_names": CLASSES}}
    members |= {f"data_batch_{number}": batch(number) for number in (4, 3, 5, 1, 2)}
    members |= {"readme.html": None, "test_batch": batch(7)} | changes
    return {
        f"cifar-10-batches-py/{name}": write(pickle.dumps(content, protocol=3))
        for name, content in members.items()
    }


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Makes an archive the published one, in a mirror."""

    def publish(content: bytes) -> Path:
        path = tmp_path / images.CIFAR10
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        file = data.File("https://nowhere", hashlib.sha256(content).hexdigest(), len(content), "")
        monkeypatch.setattr(data, "FILES", {images.CIFAR10: file})
        monkeypatch.setenv("WORKBOOK_DATA", str(tmp_path))
        return path

    return publish


def packed(tmp_path, members):
    return tar(tmp_path / "packed", members).read_bytes()


@pytest.mark.parametrize("write", [as_python_2, as_python_3])
@pytest.mark.parametrize(("split", "batches"), [("train", [1, 2, 3, 4, 5]), ("test", [7])])
def test_cifar10_is_read_out_of_its_archive(
    tmp_path, publish, recwarn, capfd, write, split, batches
):
    path = publish(packed(tmp_path, small_cifar10(write)))
    found = images.cifar10(split)
    assert found.pixels.shape == (2 * len(batches), 3, 32, 32)
    expected = np.concatenate([batch(number)[b"data"] for number in batches])
    assert np.array_equal(found.pixels.flatten(1).numpy(), expected)
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == [number % 3 for number in batches for _ in range(2)]
    assert found.classes == ("airplane", "cat", "frog")
    # Nothing is unpacked, and nothing is said.
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [tmp_path / "packed", path]
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_python_2_is_imitated_well():
    written = as_python_2(pickle.dumps(batch(1), protocol=3))
    names = {opcode.name for opcode, _, _ in pickletools.genops(written)}
    assert not {name for name in names if "UNICODE" in name or "BYTES" in name}
    assert b"numpy.core.multiarray" in written
    assert images._ArrayUnpickler(io.BytesIO(written), encoding="bytes").load()[b"data"].shape


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"no split 'val'\. Choose train or test"):
        images.cifar10("val")


class Malicious:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        function, *arguments = self.call
        return function, tuple(arguments)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Malicious(os.system, "touch stolen"), r"(posix|nt)\.system"),
        (Malicious(eval, "open('stolen', 'w')"), r"builtins\.eval"),
        (Malicious(np.load, "stolen"), r"numpy\.load"),
        (batch(1) | {b"labels": torch.tensor([1])}, "torch"),
        (batch(1) | {b"data": np.zeros((2, 3072), np.float32)}, "f4"),
        (batch(1) | {b"data": np.array([print, None])}, "O8"),
    ],
)
def test_a_pickle_may_hold_plain_values_and_bytes_alone(
    tmp_path, publish, monkeypatch, content, said
):
    monkeypatch.chdir(tmp_path)
    path = publish(packed(tmp_path, small_cifar10(test_batch=content)))
    with pytest.raises(data.DataError, match=said) as error:
        images.cifar10("test")
    assert str(path) in str(error.value)
    assert not (tmp_path / "stolen").exists()


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    return content[:30] + bytes(byte ^ 255 for byte in content[30:90]) + content[90:]


@pytest.mark.parametrize("damage", [truncated, flipped, lambda content: b"", lambda content: b"?"])
def test_a_damaged_archive_is_said_with_what_to_do(tmp_path, publish, damage):
    path = publish(damage(packed(tmp_path, small_cifar10())))
    with pytest.raises(data.DataError, match=f"{path} is not.*or is damaged.*Remove it"):
        images.cifar10("test")


@pytest.mark.parametrize(
    "changes",
    [
        {"test_batch": {}},
        {"test_batch": [1, 2]},
        {"test_batch": batch(1) | {b"data": [1, 2]}},
        {"test_batch": batch(1) | {b"data": np.zeros((2, 3071), np.uint8)}},
        {"test_batch": batch(1) | {b"labels": [0]}},
        {"test_batch": batch(1) | {b"labels": [0, 3]}},
        {"test_batch": batch(1) | {b"labels": [-1, 0]}},
        {"batches.meta": {b"label_names": 3}},
    ],
)
def test_unexpected_content_is_said_with_what_to_do(tmp_path, publish, changes):
    publish(packed(tmp_path, small_cifar10(**changes)))
    with pytest.raises(data.DataError, match="Remove it, and it will be downloaded again"):
        images.cifar10("test")


def test_a_missing_member_is_named(tmp_path, publish):
    members = small_cifar10()
    del members["cifar-10-batches-py/data_batch_3"]
    publish(packed(tmp_path, members))
    with pytest.raises(data.DataError, match="it holds no data_batch_3"):
        images.cifar10("train")
    assert len(images.cifar10("test")) == 2


# Folders of pictures


def picture(color=(255, 0, 0), size=(6, 4), form="png", mode="RGB", **options):
    """The bytes of a picture of one color, size (width, height)."""
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, form, **options)
    return file.getvalue()


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
ANIMALS = {
    "top/train/dog/2.png": picture(GREEN),
    "top/train/dog/10.PNG": picture(BLUE),
    "top/train/cat/a.bmp": picture(RED, form="bmp"),
    "top/train/cat/b.gif": picture(255, form="gif", mode="L"),
    "top/train/cat/.hidden.png": b"",
    "top/train/cat/._b.png": b"",
    "top/train/.cache/x.png": b"",
    "top/train/cat/notes.txt": b"",
    "top/train/cat/more/c.png": b"",
    "top/train/cover.png": b"",
    "top/trainer/cat/c.png": b"",
    "top/test/cat/c.png": b"",
}


def folder(path, members):
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


KINDS = {
    "folder": folder,
    **{
        mode: lambda path, members, mode=mode: tar(path / "animals.tar", members, mode)
        for mode in ("w:", "w:gz", "w:bz2", "w:xz")
    },
    "with a dot": lambda path, members: tar(
        path / "a", {f"./{name}": content for name, content in members.items()}
    ),
    "backward": lambda path, members: tar(path / "a", dict(reversed(members.items()))),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inside", ["top/train", "top/train/", "./top/train"])
def test_pictures_come_by_class_and_name(tmp_path, kind, inside):
    found = images.image_folder(KINDS[kind](tmp_path, ANIMALS), inside)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.labels.dtype == torch.int64
    colors = torch.tensor([RED, WHITE, BLUE, GREEN], dtype=torch.uint8)
    assert torch.equal(found.pixels, colors[:, :, None, None].expand(4, 3, 4, 6))
    assert found.pixels.is_contiguous()


def test_other_pictures_can_stand_in_for_cifar10(tmp_path, monkeypatch):
    members = {
        "train/cat/1.png": picture(),
        "train/dog/1.png": picture(),
        "test/cat/2.png": picture(),
    }
    folder(tmp_path, members)
    monkeypatch.setenv("WORKBOOK_CIFAR10", str(tmp_path))
    found = images.cifar10("train")
    assert found.pixels.shape == (2, 3, 32, 32)
    assert found.classes == ("cat", "dog")
    assert len(images.cifar10("test")) == 1
    with pytest.raises(ValueError, match="no split 'val'"):
        images.cifar10("val")


def test_a_path_may_be_text_and_the_class_folders_at_its_top(tmp_path):
    folder(tmp_path, {"b/1.png": picture(), "a/1.png": picture(), "empty/notes.txt": b""})
    assert images.image_folder(str(tmp_path)).classes == ("a", "b")


def test_a_folder_may_be_a_link(tmp_path):
    folder(tmp_path, {"real/a/1.png": picture()})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "real" / "a")
    assert len(images.image_folder(tmp_path / "set")) == 1


def test_a_folder_named_like_a_picture_is_none(tmp_path):
    folder(tmp_path, {"a/1.png": picture(), "a/2.png/notes.txt": b""})
    assert len(images.image_folder(tmp_path)) == 1


def test_pictures_of_other_modes_become_red_green_blue(tmp_path, recwarn):
    found = images.image_folder(
        folder(
            tmp_path,
            {
                "a/1.png": picture(128, mode="L"),
                "a/2.png": picture((10, 20, 30, 255), mode="RGBA"),
                "a/3.png": picture(1, mode="1"),
                "a/4.jpg": picture((0, 0, 0, 0), form="jpeg", mode="CMYK"),
            },
        )
    )
    assert found.pixels[:, :, 0, 0].tolist() == [[128] * 3, [10, 20, 30], [255] * 3, [255] * 3]
    assert not recwarn.list


def test_a_picture_that_lies_is_put_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    found = images.image_folder(folder(tmp_path, {"a/1.jpg": picture(form="jpeg", exif=exif)}))
    assert found.pixels.shape == (1, 3, 6, 4)


def test_different_sizes_are_refused_with_two_of_them(tmp_path):
    members = {"a/1.png": picture(), "a/2.png": picture(), "b/3.png": picture(size=(5, 9))}
    expected = r"a/1\.png has 4 x 6 pixels, b/3\.png has 9 x 5\. Pass size=\(height, width\)"
    with pytest.raises(ValueError, match=expected):
        images.image_folder(folder(tmp_path, members))
    assert images.image_folder(tmp_path, size=3).pixels.shape == (3, 3, 3, 3)
    assert images.image_folder(tmp_path, size=(2, 7)).pixels.shape == (3, 3, 2, 7)


def test_making_smaller_averages(tmp_path):
    file = io.BytesIO()
    checks = np.indices((64, 64)).sum(0) % 2 * 255  # one pixel white, one black
    Image.fromarray(checks.astype(np.uint8)).save(file, "png")
    found = images.image_folder(folder(tmp_path, {"a/1.png": file.getvalue()}), size=8)
    assert (found.pixels.int() - 127).abs().max() <= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("", "found was top/train"),
        ("top", "found was train"),
        ("top/train/cat", r"found was (a\.bmp|b\.gif)"),
        ("top/valid", "nothing at all was found"),
    ],
)
def test_a_place_without_pictures_is_said_with_what_was_found(tmp_path, kind, inside, said):
    members = {name: content for name, content in ANIMALS.items() if content}
    path = KINDS[kind](tmp_path, members)
    with pytest.raises(ValueError, match=rf"no pictures in .*<class>/<picture>.*\.jpg.*{said}"):
        images.image_folder(path, inside)


def test_a_path_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no .*none"):
        images.image_folder(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(600)])
def test_a_file_that_is_no_archive_is_said(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"file cannot be read.*tar archive|no pictures in .*file"):
        images.image_folder(tmp_path / "file")


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_that_ends_early_is_said(tmp_path, mode):
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(file, "png")
    path = tar(tmp_path / "a.tar", {"a/1.png": file.getvalue()}, mode)
    path.write_bytes(truncated(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.tar cannot be read to its end"):
        images.image_folder(path)


@pytest.mark.parametrize("content", [b"", b"no picture", picture(size=(90, 90))[:-30]])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, content):
    folder(tmp_path, {"a/1.png": picture(), "a/2.png": content})
    with pytest.raises(
        ValueError, match=r"a/2\.png in .* cannot be read as a picture.*take it out"
    ):
        images.image_folder(tmp_path)


@pytest.mark.skipif(not JPEGS.is_file(), reason="the JPEGs of CIFAR-10 are not beside the project")
def test_the_jpegs_of_cifar10_are_read_without_unpacking():
    found = images.image_folder(JPEGS, "test")  # 4 s: 60,000 members are passed, 10,000 decoded
    assert found.pixels.shape == (10_000, 3, 32, 32)
    assert len(found.classes) == 10
    assert found.classes[:2] == ("airplane", "automobile")
    assert found.labels.bincount().tolist() == [1000] * 10
    assert 0.4 < found.floats().mean() < 0.55


# Augmentation

relaxed = settings(deadline=None)  # the first use of an operation takes long
shapes = st.tuples(*(st.integers(1, limit) for limit in (4, 3, 7, 9)))
AUGMENTATIONS = (images.random_crop, images.random_flip, images.random_resized_crop)


def random_images(*shape, dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@relaxed
@given(shapes, st.integers(0, 5), st.integers(0, 2**30))
def test_a_crop_is_a_piece_of_the_padded_image(shape, padding, seed):
    x = random_images(*shape) + 1  # no pixel is 0, as the padding is
    cropped = images.random_crop(x, generator(seed), padding)
    _, _, height, width = shape
    padded = torch.nn.functional.pad(x, (padding,) * 4)
    for image, whole in zip(cropped, padded, strict=True):
        pieces = whole.unfold(1, height, 1).unfold(2, width, 1)
        assert (pieces == image[:, None, None]).all(-1).all(-1).all(0).any()


@relaxed
@given(shapes)
def test_a_crop_without_padding_is_the_image(shape):
    x = random_images(*shape)
    assert torch.equal(images.random_crop(x, padding=0), x)


@relaxed
@given(shapes, st.integers(0, 2**30))
def test_flipping_twice_the_same_way_is_the_image(shape, seed):
    x = random_images(*shape)
    once = images.random_flip(x, generator(seed))
    assert torch.equal(images.random_flip(once, generator(seed)), x)
    for image, before in zip(once, x, strict=True):
        assert torch.equal(image, before) or torch.equal(image, before.flip(-1))


@relaxed
@given(shapes)
def test_a_resized_crop_of_the_whole_square_is_the_image(shape):
    x = random_images(*shape[:3], shape[2], dtype=torch.float64)
    whole = images.random_resized_crop(x, scale=(1, 1), ratio=(1, 1))
    torch.testing.assert_close(whole, x, rtol=0, atol=1e-6)


@relaxed
@given(shapes, st.integers(0, 2**30))
def test_a_resized_crop_invents_no_brightness(shape, seed):
    x = random_images(*shape)
    result = images.random_resized_crop(x, generator(seed), scale=(0.01, 1), ratio=(0.2, 5))
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    assert ((result >= low - 1e-5) & (result <= high + 1e-5)).all()


def test_all_places_of_a_crop_are_equally_likely():
    x = torch.zeros(9000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    counts = images.random_crop(x, generator(), padding=1).sum(0)[0]
    inner = counts[1:4, 1:4]
    assert inner.sum() == 9000
    # Nine places, 1000 each; a standard deviation is 30.
    assert (inner - 1000).abs().max() < 150


def test_half_of_the_images_are_flipped():
    x = torch.tensor([0.0, 1.0]).expand(10_000, 1, 1, 2)
    flipped = images.random_flip(x, generator())[:, 0, 0, 0].sum()
    assert 4800 < flipped < 5200  # a standard deviation is 50


def test_a_resized_crop_has_the_area_and_shape_that_were_asked_for():
    # The image's pixels are their own places, so that the result tells which piece it is.
    place = torch.linspace(-1, 1, 41, dtype=torch.float64)
    x = torch.stack(torch.meshgrid(place, place, indexing="ij")).expand(1000, 2, 41, 41)
    result = images.random_resized_crop(x, generator(), scale=(0.1, 0.4), ratio=(0.5, 2))
    tall = result[:, 0, 30, 20] - result[:, 0, 10, 20]
    wide = result[:, 1, 20, 30] - result[:, 1, 20, 10]
    area, ratio = tall * wide, wide / tall
    assert 0.0999 < area.min() < 0.11
    assert 0.39 < area.max() < 0.4001
    assert area.mean() == pytest.approx(0.25, abs=0.01)
    assert 0.4999 < ratio.min() < 0.52
    assert 1.95 < ratio.max() < 2.0001
    assert ratio.log().mean() == pytest.approx(0, abs=0.05)  # a standard deviation is 0.013


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_augmentation_keeps_its_input_and_the_kind_of_it(augment, dtype):
    x = random_images(3, 2, 6, 4, dtype=dtype).transpose(2, 3)  # not contiguous
    before = x.clone()
    result = augment(x, generator())
    result.fill_(7)  # its memory is its own
    assert torch.equal(x, before)
    assert (result.shape, result.dtype, result.device) == (x.shape, x.dtype, x.device)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_a_seed_repeats_the_augmentation_and_leaves_the_global_numbers_alone(augment):
    x = random_images(32, 1, 8, 8)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (augment(x, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Each image has its own draw.
    same = x[:1].expand(32, -1, -1, -1)
    assert len({tuple(image.flatten().tolist()) for image in augment(same, generator(1))}) > 1


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("wrong", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8).byte()])
def test_augmentation_of_anything_else_is_refused(augment, wrong):
    said = re.escape(f"{tuple(wrong.shape)} and are {wrong.dtype}") + r".*images\.floats\(\)"
    with pytest.raises(ValueError, match=said):
        augment(wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_on_a_graphics_card_the_same_is_drawn(augment):
    x = random_images(16, 3, 8, 8)
    result = augment(x.cuda(), generator())
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), augment(x, generator()))
