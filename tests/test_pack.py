"""Reference packs: deterministic, and clear where they cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import ROOT, SECRET, fresh_pack

from autograder import exercise as exercises
from autograder import record as recording
from autograder.exercise import Exercise, Returned
from autograder.pack import Pack, PackError, path_of
from autograder.record import RecordError, record_exercise

CHAPTER = "01_attention"


def test_a_pack_survives_writing_and_reading(tmp_path: Path) -> None:
    pack = fresh_pack(CHAPTER)
    path = tmp_path / "secret.safetensors"
    assert recording.write(pack, path)
    assert not recording.write(pack, path), "the same pack is not written twice"
    read = Pack.load(path)
    assert read.seed == SECRET
    assert read.hidden
    assert read.to_bytes() == pack.to_bytes()
    assert recording.stale(read, path) == ""


def test_recording_twice_gives_the_same_bytes() -> None:
    again = recording.record(ROOT, [CHAPTER], SECRET, hidden=True)[CHAPTER]
    assert again.to_bytes() == fresh_pack(CHAPTER).to_bytes()


def test_another_seed_gives_other_references() -> None:
    other = recording.record(ROOT, [CHAPTER], SECRET + 1, hidden=True)[CHAPTER]
    case = "a batch, over the last axis by default"
    a, b = (
        pack.references("attention/softmax").expected[case].outputs["weights"]
        for pack in (other, fresh_pack(CHAPTER))
    )
    assert a.shape == b.shape
    assert not torch.allclose(a, b)


def test_the_public_pack_holds_no_hidden_case() -> None:
    public = Pack.load(path_of(CHAPTER))
    assert not any(case.hidden for r in public.exercises.values() for case in r.cases)


def damaged(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "pack.safetensors"
    path.write_bytes(data)
    with pytest.raises(PackError) as caught:
        Pack.load(path)
    return str(caught.value)


def test_a_missing_pack_names_file_and_command(tmp_path: Path) -> None:
    with pytest.raises(PackError) as caught:
        Pack.load(tmp_path / "gone.safetensors")
    assert "gone.safetensors" in str(caught.value)
    assert "autograder record --seed SECRET --to" in str(caught.value)
    with pytest.raises(PackError, match=r"99_none\.safetensors.*Record it: autograder record\."):
        Pack.load(path_of("99_none"))


@pytest.mark.parametrize("keep", [0, 5, 100, 5000, -1])
def test_a_truncated_pack_names_file_and_command(tmp_path: Path, keep: int) -> None:
    text = damaged(tmp_path, path_of(CHAPTER).read_bytes()[:keep])
    assert "pack.safetensors is damaged or cut short" in text
    assert "autograder record" in text


def test_a_pack_of_another_format_names_both(tmp_path: Path) -> None:
    header = json.dumps({"format": 99})
    text = damaged(tmp_path, safetensors.torch.save({}, {"pack": header}))
    assert "format 99" in text
    assert "autograder record" in text


def test_a_pack_of_other_cases_names_the_chapter(tmp_path: Path) -> None:
    old = replace(fresh_pack(CHAPTER), versions={CHAPTER: "0" * 16})
    text = damaged(tmp_path, old.to_bytes())
    assert f"another version of the cases of {CHAPTER}" in text


def test_an_exercise_that_the_pack_lacks_is_named() -> None:
    empty = replace(fresh_pack(CHAPTER), exercises={})
    with pytest.raises(PackError, match="nothing on attention/softmax"):
        empty.references("attention/softmax")


def toy() -> Exercise:
    exercise = Exercise("toy/double", 1, "double(x)", [Returned("y")], chapter=CHAPTER)

    @exercise.case("three numbers")
    def _(double, make):  # type: ignore[no-untyped-def]
        return {"y": double(make.normal(3))}

    return exercise


def test_a_solution_that_fails_its_own_case_is_not_recorded() -> None:
    with pytest.raises(RecordError, match=r"toy/double fails its own case 'three numbers'"):
        record_exercise(toy(), lambda x: None, 1, False)


def test_a_misconception_that_no_case_catches_is_not_recorded() -> None:
    exercise = toy()
    exercise.misconception("It is in fact right.")(lambda x: 2 * x)
    with pytest.raises(RecordError, match="no case tells this misconception"):
        record_exercise(exercise, lambda x: x + x, 1, False)


def test_a_changed_solution_makes_the_pack_stale(tmp_path: Path) -> None:
    exercise = toy()
    path = tmp_path / "toy.safetensors"
    versions = {CHAPTER: exercises.fingerprint(CHAPTER)}

    def pack(solution) -> Pack:  # type: ignore[no-untyped-def]
        return Pack(
            1, False, versions, {exercise.id: record_exercise(exercise, solution, 1, False)}
        )

    recording.write(pack(lambda x: 2 * x), path)
    assert recording.stale(pack(lambda x: x + x), path) == ""
    assert "changed" in recording.stale(pack(lambda x: 3 * x), path)
