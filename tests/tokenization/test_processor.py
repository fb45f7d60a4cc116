"""Any Gymnasium environment of supported spaces: spaces to a layout, episode to ids, and back."""

import json

import gymnasium
import gymnasium.wrappers
import numpy as np
import pytest
from gymnasium import spaces

import generalist.tokenization.processor as module
from generalist.episode import Episode, tree_from_leaves, tree_leaves, tree_stack
from generalist.errors import GeneralistError
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor
from tests.bits import every_bit

INSTALLED = {  # id: codecs its observation and action fields must get
    "CartPole-v1": ["continuous", "discrete"],
    "Pendulum-v1": ["continuous", "continuous"],
    "MountainCarContinuous-v0": ["continuous", "continuous"],
    "Acrobot-v1": ["continuous", "discrete"],
    "LunarLander-v3": ["continuous", "discrete"],
    "BipedalWalker-v3": ["continuous", "continuous"],
    "CarRacing-v3": ["image", "continuous"],
    "FrozenLake-v1": ["discrete", "discrete"],
    "Taxi-v4": ["discrete", "discrete"],
    "Blackjack-v1": ["discrete", "discrete", "discrete", "discrete"],  # a Tuple
    "HalfCheetah-v5": ["continuous", "continuous"],
    "Ant-v5": ["continuous", "continuous"],
    "ALE/Pong-v5": ["image", "discrete"],
    "ALE/Breakout-v5": ["discrete", "discrete"],  # asked for its RAM
    "MiniGrid-Empty-5x5-v0": ["discrete", "discrete", "text", "discrete"],  # Dict with Text
    "BabyAI-GoToLocal-v0": ["discrete", "discrete", "text", "discrete"],
}


@pytest.fixture(scope="module")
def processor():
    return GeneralistProcessor.default()


def play(env, steps):
    """A real episode of random actions, stacked."""
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    observations, actions, rewards = [], [], []
    for _ in range(steps):
        action = env.action_space.sample()
        observations.append(observation)
        actions.append(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
        if terminated or truncated:
            break
    return Episode(
        task="gym/" + env.spec.id,
        observations=tree_stack(observations),
        actions=tree_stack(actions),
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
    )


def make(name):
    import ale_py
    import minigrid  # noqa: F401 - registers its environments

    gymnasium.register_envs(ale_py)
    if "Breakout" in name:
        return gymnasium.make(name, obs_type="ram")
    env = gymnasium.make(name)
    if not isinstance(env.observation_space, spaces.Dict):
        return env
    # MiniGrid's mission is a space of its own without a bound on its length; say one.
    parts = {**env.observation_space.spaces, "mission": spaces.Text(40, charset=LETTERS)}
    return gymnasium.wrappers.TransformObservation(env, lambda x: x, spaces.Dict(parts))


def assert_close(again, original, field):
    codec = field.codec
    if codec.kind == "image":
        assert again.shape == original.shape and again.dtype == original.dtype
    elif codec.kind == "continuous":
        codes = codec.encode(original, None)
        np.testing.assert_array_equal(codec.encode(again, None), codes)
    else:
        np.testing.assert_array_equal(again, original)


@pytest.mark.parametrize("name", INSTALLED)
def test_an_installed_environment_needs_no_registration(processor, name):
    env = make(name)
    layout = processor.layout(env.observation_space, env.action_space)
    assert [field.codec.kind for field in layout.fields] == INSTALLED[name]
    episode = play(env, 12)
    ids = processor.encode(episode, layout)
    assert ids.shape == (episode.steps * layout.tokens_per_timestep,)
    assert ids.dtype == np.uint16 and ids.max() < processor.vocabulary.size
    again = processor.decode(ids, layout)
    for field in layout.fields:
        side = "observations" if field.role == "observation" else "actions"
        originals = dict(tree_leaves(getattr(episode, side)))
        decoded = dict(tree_leaves(getattr(again, side)))
        assert_close(decoded[field.path], originals[field.path], field)
    if not any(field.codec.kind == "image" for field in layout.fields):
        np.testing.assert_array_equal(processor.encode(again, layout), ids)
    assert env.action_space.contains(
        {k: v[0] for k, v in again.actions.items()}
        if isinstance(again.actions, dict)
        else again.actions[0]
    )


LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz ")
NESTED = spaces.Dict(
    z=spaces.MultiBinary(3),
    a=spaces.Tuple((spaces.MultiDiscrete([3, 7]), spaces.Discrete(4, start=-2))),
    m=spaces.Dict(
        grid=spaces.Box(0, np.full((2, 2, 2), [3, 4]), dtype=np.int64), x=spaces.Box(-1, 1)
    ),
)


def test_nested_spaces_are_laid_out_in_lexicographic_order(processor):
    layout = processor.layout(NESTED, spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (2,)))))
    assert [field.name for field in layout.fields] == [
        "observation/a/0",
        "observation/a/1",
        "observation/m/grid",
        "observation/m/x",
        "observation/z",
        "action/0",
        "action/1",
    ]
    assert layout.tokens_per_timestep == 2 + 1 + 4 + 1 + 3 + 1 + 1 + 2
    positions = layout.positions
    assert positions.of_role("separator").tolist() == [11]
    assert positions.of_role("action").tolist() == [12, 13, 14]
    assert positions.chosen.nonzero()[0].tolist() == [12, 13, 14]
    discrete = processor.vocabulary["discrete"]
    continuous = processor.vocabulary["continuous"]
    assert layout.legal[0] == (discrete.start, discrete.start + 2)
    assert layout.legal[1] == (continuous.start, continuous.stop)
    assert positions.bins[12:].tolist() == [-1, continuous.start, continuous.start]


def test_random_samples_of_nested_spaces_come_back(processor):
    action_space = spaces.MultiDiscrete([[2, 3], [4, 5]])
    layout = processor.layout(NESTED, action_space)
    NESTED.seed(0)
    episode = Episode(
        task="gym/Nested",
        observations=tree_stack([NESTED.sample() for _ in range(20)]),
        actions=tree_stack([action_space.sample() for _ in range(20)]),
        rewards=np.zeros(20),
        terminated=False,
        truncated=True,
    )
    again = processor.decode(processor.encode(episode, layout), layout)
    np.testing.assert_array_equal(again.actions, episode.actions)
    for path, leaf in tree_leaves(episode.observations):
        decoded = dict(tree_leaves(again.observations))[path]
        assert decoded.shape == leaf.shape and decoded.dtype == leaf.dtype
        np.testing.assert_allclose(decoded, leaf, atol=1 / 1024)


def test_layout_survives_json(processor):
    import json

    layout = processor.layout(NESTED, spaces.Discrete(3))
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64), "18446744073709551616 values"),
        (spaces.Box(-np.inf, np.inf, (2,), np.int64), "as good as no bounds"),
        (spaces.Box(2e300, np.inf, (2,), np.float64), "too large"),
        (spaces.Box(0, 255, (7056,), np.uint8), "ReshapeObservation"),
        (spaces.Box(0, 255, (20, 20, 3), np.uint8), "ResizeObservation"),
        (spaces.Box(0, 255, (84, 84, 84), np.uint8), "ReshapeObservation"),
        (spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1)]), "OneOf"),
        (spaces.Dict({(1, 2): spaces.Discrete(2)}), r"key \(1, 2\)"),
        (spaces.Dict({True: spaces.Discrete(2)}), "key True"),
        (spaces.Dict(x=spaces.Tuple(()), y=spaces.Discrete(2)), "observation/x: .* it is empty"),
        (spaces.Box(-1, 1, (3, 0)), "empty"),
        (spaces.Sequence(spaces.Discrete(2)), "Sequence"),
        (spaces.Graph(spaces.Box(-1, 1), None), "Graph"),
        (spaces.Dict(inner=spaces.Sequence(spaces.Discrete(2))), "observation/inner"),
        (spaces.Dict(), "empty"),
        (spaces.Box(-1, 1, (20_000,)), "20002 tokens"),
    ],
)
def test_what_cannot_be_laid_out_is_refused_with_the_reason(processor, space, reason):
    with pytest.raises(GeneralistError, match=reason):
        processor.layout(space, spaces.Discrete(2))


def test_nan_in_an_observation_names_task_field_and_step(processor):
    space = spaces.Dict(arm=spaces.Dict(angle=spaces.Box(-np.inf, np.inf, (2,))))
    layout = processor.layout(space, spaces.Discrete(2))
    angle = np.zeros((5, 2))
    angle[3, 1] = np.nan
    episode = Episode("gym/Arm", {"arm": {"angle": angle}}, np.zeros(5), np.zeros(5), True, False)
    with pytest.raises(GeneralistError, match="gym/Arm: observation/arm/angle is nan at step 3"):
        processor.encode(episode, layout)


def test_a_missing_field_is_named(processor):
    layout = processor.layout(spaces.Dict(a=spaces.Discrete(2)), spaces.Discrete(2))
    episode = Episode("gym/X", {"b": np.zeros(2)}, np.zeros(2), np.zeros(2), True, False)
    with pytest.raises(GeneralistError, match="observation/a is missing"):
        processor.encode(episode, layout)


def test_an_illegal_id_is_an_error_not_a_clipped_action(processor):
    layout = processor.layout(spaces.Discrete(2), spaces.Discrete(3))
    start = processor.vocabulary["discrete"].start
    assert processor.decode_actions(np.array([[start + 2]]), layout).tolist() == [2]
    with pytest.raises(GeneralistError, match="legal"):
        processor.decode_actions(np.array([[start + 3]]), layout)


def test_labels_stand_apart_from_the_executed_actions(processor):
    layout = processor.layout(spaces.Discrete(4), spaces.Discrete(4))
    episode = Episode(
        "gym/X", np.arange(4), np.zeros(4, int), np.zeros(4), True, False, labels=np.arange(4)
    )
    start = processor.vocabulary["discrete"].start
    ids = processor.encode(episode, layout).reshape(4, -1)
    assert (ids[:, layout.positions.chosen].ravel() == start).all()
    assert (processor.encode_labels(episode, layout) == start + np.arange(4)).all()


def test_header_holds_task_and_instruction(processor):
    ids = processor.header("babyai/GoToLocal", "go to the red ball")
    fields = [info.value for info in processor.explain_header(ids)]
    assert fields[0] == "begin" and "instruction" in fields
    assert processor.header("text/pydoc").tolist() == [processor.vocabulary.special("begin")]


def test_explain_says_what_each_token_means(processor):
    env = make("MiniGrid-Empty-5x5-v0")
    layout = processor.layout(env.observation_space, env.action_space)
    episode = play(env, 3)
    infos = list(processor.explain(processor.encode(episode, layout), layout))
    assert len(infos) == 3 * layout.tokens_per_timestep
    assert [info.timestep for info in infos] == sorted(info.timestep for info in infos)
    actions = [int(info.value) for info in infos if info.field == "action"]
    assert actions == episode.actions.tolist()
    mission = [i.value for i in infos if i.timestep == 0 and i.field.startswith("observation/mi")]
    assert "".join(eval(piece) for piece in mission) == episode.observations["mission"][0]


def test_save_and_load_keep_the_fingerprint(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = GeneralistProcessor.from_pretrained(tmp_path)
    assert again.fingerprint == processor.fingerprint
    assert again.vocabulary == processor.vocabulary


def test_a_changed_tokenizer_file_is_noticed(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    stored = json.loads(file.read_text())
    stored["pre_tokenizer"]["add_prefix_space"] = True
    file.write_text(json.dumps(stored))
    with pytest.raises(GeneralistError, match="fingerprint"):
        GeneralistProcessor.from_pretrained(tmp_path)


def test_a_folder_without_processor_is_named(tmp_path):
    with pytest.raises(GeneralistError, match=module.CONFIG_FILE):
        GeneralistProcessor.from_pretrained(tmp_path)


def test_part_of_a_timestep_is_refused(processor):
    layout = processor.layout(spaces.Discrete(2), spaces.Discrete(2))
    with pytest.raises(GeneralistError, match="whole timesteps of 3 tokens"):
        processor.decode(np.zeros(4), layout)


def test_trees_without_a_name_are_leaves():
    assert tree_from_leaves([((), 3)]) == 3


def test_a_checkpoints_processor_is_found_in_its_folder(tiny_run):
    processor = GeneralistProcessor.from_pretrained(tiny_run.checkpoint)
    own = GeneralistProcessor.from_pretrained(tiny_run.checkpoint / "generalist")
    assert processor.fingerprint == own.fingerprint


def test_a_flipped_bit_of_a_saved_processor_is_named_or_harmless(without_frames, tmp_path):
    without_frames.save_pretrained(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for damaged in every_bit(content, 1 + 8 * len(content) // 200):
            path.write_bytes(damaged)
            try:
                found = GeneralistProcessor.from_pretrained(tmp_path)
            except GeneralistError as error:
                assert str(tmp_path) in str(error)
            else:
                assert found.fingerprint == without_frames.fingerprint
        path.write_bytes(content)
