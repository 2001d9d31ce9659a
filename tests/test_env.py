"""Environment variables, folders, seeds and provenance."""

import json
import random
import socket

import numpy as np
import pytest
import torch

from synflow_lib import data, env


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for variable in ("SCALE", "DEVICE", "FIGURES", "DATA", "RUNS"):
        monkeypatch.delenv(f"SYNFLOW_{variable}", raising=False)


def test_scale_defaults_to_classroom_also_when_empty(monkeypatch):
    assert env.scale() == "classroom"
    monkeypatch.setenv("SYNFLOW_SCALE", "")
    assert env.scale() == "classroom"


def test_a_chosen_scale_can_be_chosen_anew_and_yields_to_the_variable(monkeypatch):
    monkeypatch.setattr(env, "_chosen", None)
    monkeypatch.setenv("SYNFLOW_SCALE", "")
    assert [env.choose(name) for name in env.SCALES] == list(env.SCALES)
    monkeypatch.setenv("SYNFLOW_SCALE", "colab")
    assert env.choose("panel") == env.scale() == "colab"
    with pytest.raises(ValueError, match="'Panel'; expected one of classroom, colab, panel, paper"):
        env.choose("Panel")


def test_scale_is_read_at_each_call(monkeypatch):
    for name in env.SCALES:
        monkeypatch.setenv("SYNFLOW_SCALE", name)
        assert env.settings().scale == env.scale() == name


def test_unknown_scale_lists_the_scales(monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", "Paper")
    with pytest.raises(ValueError, match="'Paper'.*classroom, colab, panel, paper"):
        env.settings()


def test_settings_grow_with_the_scale_and_name_data_that_exists():
    rising = [env.SETTINGS[name] for name in env.SCALES]
    assert sorted(rising, key=lambda settings: settings.seeds) == rising
    assert rising[0].scoring_data == "digits"  # classroom must not download
    for settings in rising:
        assert settings.scoring_data in data.NAMES
        assert settings.iterations == 100  # Algorithm 1 of the paper, at every scale
        assert settings.compressions[0] == 1
        assert list(settings.alphas) == sorted(set(settings.alphas))


def test_device_variable_wins(monkeypatch):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert env.device().type == expected
    monkeypatch.setenv("SYNFLOW_DEVICE", "cpu")
    assert env.device() == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu2"])
def test_unusable_device_is_named(monkeypatch, name):
    monkeypatch.setenv("SYNFLOW_DEVICE", name)
    with pytest.raises(ValueError, match=f"SYNFLOW_DEVICE is '{name}'.*cpu"):
        env.device()


def test_figures_go_to_the_checkout_around_the_working_directory(monkeypatch, tmp_path):
    for folder in ("notebooks/deep", "synflow_lib"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert env.figures_dir() == tmp_path / "figures"
    assert (tmp_path / "figures").is_dir()


def test_figures_outside_a_checkout_and_by_variable(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert env.figures_dir() == tmp_path / "figures"
    monkeypatch.setenv("SYNFLOW_FIGURES", "elsewhere/deep")
    assert env.figures_dir() == tmp_path / "elsewhere" / "deep"
    assert (tmp_path / "elsewhere" / "deep").is_dir()


def test_folder_that_cannot_be_made_names_its_variable(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SYNFLOW_DATA", str(tmp_path / "file" / "folder"))
    with pytest.raises(ValueError, match="SYNFLOW_DATA"):
        env.data_dir()


def test_seed_everything_fixes_three_generators():
    def draws():
        env.seed_everything(np.int64(7))  # as numpy.arange gives it
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    first = draws()
    assert first == draws()
    env.seed_everything(8)
    assert random.random() != first[0]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "0", True])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="seed=.*expected a whole number from 0"):
        env.seed_everything(seed)


def test_describe_is_json_and_does_not_identify_the_machine():
    facts = env.describe()
    text = json.dumps(facts)
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["numpy"] == np.__version__
    assert facts["device_name"]
    assert "/" not in str(facts["device"])
    assert socket.gethostname() not in text


def test_runs_lie_in_the_checkout_or_where_they_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("SYNFLOW_RUNS", str(tmp_path / "mine"))
    assert env.runs_dir() == tmp_path / "mine" and env.runs_dir().is_dir()
    monkeypatch.delenv("SYNFLOW_RUNS")
    monkeypatch.chdir(tmp_path)
    assert env.runs_dir() == tmp_path / "runs"


def test_workers_take_a_gpu_each_and_share_when_there_are_too_few(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(env.tempfile, "gettempdir", lambda: str(tmp_path))
    devices, held = [], []
    for _ in range(3):  # three workers: lists of their own, locks in one folder
        monkeypatch.setattr(env, "_held", [])
        devices.append(env.own_device())
        assert env.own_device() == devices[-1]  # a worker keeps its GPU
        held += env._held
    assert devices[:2] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert devices[2].type == "cuda" and len(held) == 2
    for lock, _ in held:
        lock.release()
    monkeypatch.setenv("SYNFLOW_DEVICE", "cpu")
    assert env.own_device() == torch.device("cpu")


def test_a_device_without_numbers_and_a_user_without_a_home_are_refused(monkeypatch):
    monkeypatch.setenv("SYNFLOW_DEVICE", "meta")
    with pytest.raises(ValueError, match="SYNFLOW_DEVICE is 'meta'"):
        env.device()
    monkeypatch.setenv("SYNFLOW_DATA", "~nobody_of_this_name/x")
    with pytest.raises(ValueError, match="Set SYNFLOW_DATA to a folder"):
        env.data_dir()
