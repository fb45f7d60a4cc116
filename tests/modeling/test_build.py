import numpy as np
import torch

from generalist.modeling.build import bin_coordinates, build_model
from generalist.modeling.recipe import ModelRecipe
from generalist.vocabulary import Vocabulary

VOCABULARY = Vocabulary.default()
SMALL = {"hidden_size": 64, "intermediate_size": 64, "layers": 1, "heads": 2}


def rows(model, name):
    bins = VOCABULARY[name]
    return model.get_input_embeddings().weight[bins.start : bins.stop].detach()


def similarity(table, distance):
    near = torch.nn.functional.cosine_similarity(table[:-distance], table[distance:])
    return float(near.mean())


def test_neighbouring_bins_start_alike_and_distant_ones_do_not():
    table = rows(build_model(ModelRecipe(**SMALL), VOCABULARY, 64), "continuous")
    assert similarity(table, 1) > 0.95 > similarity(table, 20) > similarity(table, 300)
    assert abs(similarity(table, 300)) < 0.4


def test_without_the_initialisation_neighbours_are_strangers():
    recipe = ModelRecipe(**SMALL, continuous_init=None)
    table = rows(build_model(recipe, VOCABULARY, 64), "continuous")
    assert abs(similarity(table, 1)) < 0.05


def test_codes_that_look_alike_start_alike():
    digits = np.stack(np.unravel_index(np.arange(1000), (10, 10, 10)), axis=1)
    coordinates = (digits / 4.5 - 1).astype(np.float32)
    model = build_model(ModelRecipe(**SMALL), VOCABULARY, 64, code_coordinates=coordinates)
    table = rows(model, "image")[:1000]
    cosine = torch.nn.functional.cosine_similarity
    next_code = cosine(table[0:1], table[1:2])  # one step in one latent
    opposite = cosine(table[0:1], table[999:1000])
    assert next_code > 0.4 and next_code > opposite + 0.2


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = build_model(ModelRecipe(**SMALL), VOCABULARY, 64, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    second = build_model(ModelRecipe(**SMALL), VOCABULARY, 64, seed=1)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_bin_coordinates_are_the_centres():
    centres = bin_coordinates(VOCABULARY)[:, 0]
    assert centres[0] == -centres[-1] == np.float32(-1 + 1 / 1024)
