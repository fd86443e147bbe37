"""Settings that steer what is written: attributes, personas, operations on what is there."""

from __future__ import annotations

from selfinstruct_train.bounds import Fraction, Weights
from selfinstruct_train.config.section import Section


class AugmentConfig(Section):
    """New instructions that are made of those there are, by the model itself.

    What an operation writes goes through the same filters and the same novelty test, and counts
    like any other instruction. Each row names the operation and the instruction it was made of.
    """

    share: Fraction = 0.0
    """Share of the requests of step 1 that ask for an operation on one instruction, once there are
    requests at all; the others continue the list of demonstrations. One yields one instruction, a
    list several."""
    operations: Weights = {
        "paraphrase": 1.0,
        "template_variation": 1.0,
        "domain_transfer": 1.0,
        "complexity": 1.0,
    }
    """Operations, drawn by weight: those that the pack's ``operations.yaml`` words. ``paraphrase``
    says the same in other words; ``template_variation`` keeps the form and changes what it is
    about; ``domain_transfer`` carries it over to another field; ``complexity`` makes it simpler,
    more detailed, or one for an expert. Four more evolve it (arXiv 2304.12244): ``deepen``,
    ``add_constraint``, ``concretise`` and ``widen``; of these a row is kept only if its answer
    differs from that of the instruction it was made of."""
