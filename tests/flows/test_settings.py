"""The command line and the config file: what stands above what, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config import QuickTestConfig, RunConfig, known_keys
from flows.settings import ConfigError, read_config
from tasks.rollout.config import RoleSampling


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(RunConfig, arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_flags_stand_above_the_file_and_the_file_above_the_flow_and_the_flow_above_the_classes(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("collect: {num_episodes: 30, seed: 3}\n")
    arguments = ["--config", str(file), "--collect.num_episodes", "40"]
    config = read_config(QuickTestConfig, arguments)
    assert config.collect.num_episodes == 40
    assert config.collect.seed == 3
    assert config.train.num_train_epochs == 1
    assert config.train.lora_r == 64
    assert read_config(RunConfig, arguments).train.num_train_epochs == 3


def test_the_old_parameters_keep_their_names_and_defaults() -> None:
    config = RunConfig()
    assert config.model.path == "Qwen/Qwen3-1.7B"
    assert (config.collect.num_episodes, config.collect.only_success, config.collect.collect_mode) == (100, True, "env")
    train = config.train
    assert (train.num_train_epochs, train.per_device_train_batch_size, train.gradient_accumulation_steps) == (3, 2, 8)
    assert (train.learning_rate, train.use_lora, train.lora_r, train.lora_alpha) == (5e-5, True, 64, 16)
    assert (config.env.max_turns, config.data_dir, config.output_dir) == (
        3,
        Path("sft_data_code"),
        Path("sft_model_code"),
    )


def test_folders_are_named_after_the_env() -> None:
    config = read_config(RunConfig, ["--env.name", "math_env", "--train.output_dir", "m"])
    assert (config.data_dir, config.output_dir) == (Path("sft_data_math"), Path("m"))


def test_a_tilde_is_the_users_home() -> None:
    config = read_config(RunConfig, ["--collect.data_dir", "~/data", "--train.output_dir", "~/model"])
    assert (config.data_dir, config.output_dir) == (Path.home() / "data", Path.home() / "model")
    assert config.resolved()["collect"]["data_dir"] == str(Path.home() / "data")


def test_values_of_every_kind_are_read_from_flags() -> None:
    line = (
        "--env.name code_env --env.roles code_generator,test_generator --collect.only_success false "
        "--collect.batch null "
        "--collect.agent_ratios.code_generator 0.7 --train.data_path a.jsonl,b.jsonl --train.learning_rate=3e-4"
    )
    config = read_config(RunConfig, line.split())
    assert config.env.roles == ("code_generator", "test_generator")
    assert config.collect.only_success is False
    assert config.collect.batch is None
    assert config.collect.agent_ratios == {"code_generator": 0.7}
    assert config.train.data_path == ["a.jsonl", "b.jsonl"]
    assert config.train.learning_rate == 3e-4


@pytest.mark.parametrize("value", ["a,b", '{"coder": "my.mod:Coder", "tester": "my.mod:Tester"}', "a=b", 'say "no"'])
def test_an_option_of_an_env_may_hold_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    (tmp_path / "noted_env.py").write_text(
        "from envs.base import EnvOptions\nfrom envs.code_env import CodeEnv\n"
        "class Options(EnvOptions):\n    note: str = ''\n"
        "class NotedEnv(CodeEnv):\n    Options = Options\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    flags = ["--env.name", "noted_env:NotedEnv", "--env.options.note", value]
    assert read_config(RunConfig, flags).env.options == {"note": value}


@pytest.mark.parametrize(
    ("value", "found"),
    [("false", False), ("3", 3), ("calm", "calm"), ("[1, 2]", [1, 2]), ('{"a": null}', {"a": None}), ('"3"', "3")],
)
def test_a_template_argument_is_json_where_it_can_be(tmp_path: Path, value: str, found: Any) -> None:
    for flags in (["--model.chat_template_args.x", value], ["--model.chat_template_args", f"x={value}"]):
        assert read_config(RunConfig, flags).model.chat_template_args == {"x": found}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"model": {"chat_template_args": {"x": found, "y": 1}}}))
    flags = ["--config", str(file), "--model.chat_template_args.y", "true"]
    assert read_config(RunConfig, flags).model.chat_template_args == {"x": found, "y": True}


def test_sampling_is_given_by_role_and_flags_stand_above_the_file_there_too(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "env: {name: math_env}\n"
        "collect: {by_role: {tool_generator: {temperature: 0.9, top_k: 7}, reasoning_generator: {seed: 3}}}\n"
    )
    line = "--collect.by_role.tool_generator.temperature 0.2 --collect.by_role.tool_generator.stop </a>,b"
    by_role = read_config(RunConfig, ["--config", str(file), *line.split()]).collect.by_role
    assert by_role == {
        "tool_generator": RoleSampling(temperature=0.2, top_k=7, stop=("</a>", "b")),
        "reasoning_generator": RoleSampling(seed=3),
    }


def test_a_saved_config_reads_back_as_the_same_run(tmp_path: Path) -> None:
    line = "--env.name math_env --collect.top_p 0.9 --collect.by_role.tool_generator.max_tokens 9"
    config = read_config(RunConfig, [*line.split(), "--model.chat_template_args.enable_thinking", "false"])
    config.save(tmp_path / "saved.yaml")
    again = read_config(RunConfig, ["--config", str(tmp_path / "saved.yaml")])
    assert again.resolved() == config.resolved()
    assert again.data_dir == config.data_dir


def test_a_saved_config_leaves_to_an_earlier_adapter_what_was_left_to_it(tmp_path: Path) -> None:
    config = read_config(RunConfig, ["--train.init_adapter", "before", "--train.lora_alpha", "16"])
    config.save(tmp_path / "saved.yaml")
    again = read_config(RunConfig, ["--config", str(tmp_path / "saved.yaml")])
    assert again.train.unset_form == config.train.unset_form == {"lora_r", "use_dora", "use_rslora"}
    assert again.resolved() == config.resolved()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--collect.num_episode 5", "unknown flag --collect.num_episode; did you mean --collect.num_episodes?"),
        ("--num_episodes 5", "did you mean --collect.num_episodes?"),
        ("--collect.num_episodes 0", "collect.num_episodes: found '0', but it should be greater than or equal to 1"),
        ("--collect.num_episodes many", "collect.num_episodes: found 'many', but it should be a valid integer"),
        ("--collect.collect_mode all", "'env' or 'agent'"),
        ("--collect.only_success", "--collect.only_success: expected one argument"),
        ("--env.name mth_env", "no environment 'mth_env'. Did you mean math_env? Known: code_env, "),
        ("--env.roles nobody", "env.roles: code_env cannot be played by ['nobody']"),
        ("--env.options.colour red", "unknown key env.options.colour"),
        ("--collect.by_role.coder 3", "found '3'; wanted --collect.by_role.coder.KEY VALUE"),
        ("--collect.by_role coder=3", "found 'coder=3'; wanted --collect.by_role.KEY.KEY VALUE"),
        (
            "--collect.by_role.coder.temprature 1",
            "unknown flag --collect.by_role.coder.temprature; did you mean --collect.by_role.coder.temperature?",
        ),
        ("--collect.by_role.code_generator.top_p 2", "collect.by_role.code_generator.top_p: found '2', but it should"),
        (
            "--collect.by_role.code_generater.top_p 1",
            "collect.by_role: no role 'code_generater' plays here; wanted code_generator, test_generator; did you mean "
            "code_generator?",
        ),
        ("--policies.code_generator.x coder", "unknown flag --policies.code_generator.x"),
        ("--config nowhere.yaml", "no file nowhere.yaml"),
        ("500", "unrecognized arguments: 500"),
    ],
)
def test_a_wrong_flag_is_told_in_one_line(line: str, said: str) -> None:
    assert said in refusal(*line.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("collect:\n  num_episodes: [1\nenv: {}\n", "run.yaml:3: not YAML"),
        ("collect: {num_episode: 1}\n", "unknown key collect.num_episode; did you mean collect.num_episodes?"),
        ("colect: {num_episodes: 1}\n", "unknown key colect; did you mean collect?"),
        ("collect: {batch: \x01}\n", "run.yaml: not YAML"),
        ("collect: {agent_ratios: {code_generator: .nan}}\n", "collect.agent_ratios.code_generator: found nan"),
        (
            "collect: {by_role: {code_generator: {topp: 1}}}\n",
            "unknown key collect.by_role.code_generator.topp; did you mean collect.by_role.code_generator.top_p?",
        ),
        ("collect: {by_role: {code_generator: 3}}\n", "collect.by_role.code_generator: found 3, but it should be"),
        ("collect: {by_role: {nobody: {top_p: 1}}}\n", "collect.by_role: no role 'nobody' plays here; wanted code_"),
        ("- collect\n", "found a list; wanted sections"),
        ("train: {learning_rate: 5}\n", "train.learning_rate: found 5, but it should be less than or equal to 1"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert said in refusal("--config", str(file))


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(RunConfig, ["--collect.seed", "-1", "--train.lora_r", "0"])
    assert len(str(caught.value).splitlines()) == 2


def test_every_key_is_described() -> None:
    assert all(field.description for field in known_keys().values())


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("deployments/configs/*.yaml")), ids=str)
def test_every_config_file_of_the_project_is_read(file: Path) -> None:
    read_config(RunConfig, ["--config", str(file)])
    assert yaml.safe_load(file.read_text())


@pytest.mark.parametrize("flag", ["--policies", "--env.options", "--collect.agent_ratios"])
def test_a_table_without_a_key_is_told_how_it_is_written(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag}: found 'coder'; wanted {flag}.KEY VALUE"):
        read_config(RunConfig, [flag, "coder"])


def test_policies_are_given_by_role() -> None:
    config = read_config(RunConfig, ["--env.name", "math_env", "--policies.tool_generator", "coder"])
    assert config.play.policy_names == ("shared_model", "coder")
    assert [str(folder) for folder in config.adapter_dirs.values()] == [
        "sft_model_math/shared_model",
        "sft_model_math/coder",
    ]


def test_files_to_train_on_are_given_by_name_by_list_and_with_weights() -> None:
    def read(text: str) -> Any:
        return read_config(RunConfig, ["--train.data_path", text]).train.data_path

    assert read("a.jsonl") == "a.jsonl"
    assert read("a.jsonl,b*.parquet") == ["a.jsonl", "b*.parquet"]
    assert read('{"a.jsonl": 2, "b.jsonl": 0.5}') == {"a.jsonl": 2, "b.jsonl": 0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a.jsonl": -1}', "train.data_path: found the weight -1 of a.jsonl; wanted a number above 0"),
        ('{"a.jsonl": "two"}', "train.data_path: found the weight 'two' of a.jsonl; wanted a number above 0"),
        ('{"a.jsonl": }', "Parsing error encountered for train.data_path: Expecting value"),
    ],
)
def test_a_wrong_weight_is_told_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(RunConfig, ["--train.data_path", text])
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
