"""In which form a run shows timesteps: flat, or compact with what the run adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from generalist.errors import UsageError
from generalist.modeling.embedder_files import stored_form
from generalist.tokenization.compact import CompactForm, OutcomeIds

if TYPE_CHECKING:
    from generalist.modeling.recipe import ModelRecipe
    from generalist.tokenization.layout import Layout
    from generalist.vocabulary import TokenRange, Vocabulary


def form_of(
    model: ModelRecipe,
    layouts: Mapping[str, Layout],
    returns: TokenRange | None = None,
    world: OutcomeIds | None = None,
) -> CompactForm | None:
    """The compact form of a run on these tasks; None where it trains in the flat form.

    A checkpoint that the run starts from keeps its form, extended by what is new: a position for
    returns too, where the ids of returns are given, and one for actions with those of outcomes.

    Raises UsageError where these are given and the form is flat, or has no room for them.
    """
    before = None if model.init_from is None else stored_form(model.init_from)
    if before is None and model.form == "flat":
        for section, given in (("returns", returns), ("world", world)):
            if given is not None:
                raise UsageError(
                    f"A recipe with {section} trains in the compact form; set model.form to "
                    f"compact, or leave {section} out."
                )
        return None
    sizes = model.embedders
    form = before or CompactForm(
        positions=sizes.positions, width=sizes.width, convolutions=sizes.convolutions
    )
    if world is not None and form.positions != 1:
        raise UsageError(
            f"A recipe with world shows an observation as one position, and this one has "
            f"{form.positions}; set model.embedders.positions to 1, or leave world out."
        )
    return form.extended(layouts, returns, world)


def outcome_ids(vocabulary: Vocabulary) -> OutcomeIds:
    """The ids by which outcomes are predicted."""
    goes_on, is_over = vocabulary.special("separator"), vocabulary.special("end")
    returns = vocabulary["return"]
    return OutcomeIds(goes_on, is_over, returns.start, returns.size)
