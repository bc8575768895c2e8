"""Computes the first blocks of networks once where they are equal.

Trainings that freeze the first blocks (`backbone.frozen_blocks`) leave CAM and SLAMs with the same
ones.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from slams_ray.networks.activation_network import ActivationNetwork


class JointNetwork(nn.Module):
    """Maps (B, 3, H, W) images to the logits of every network, whose first blocks are equal."""

    def __init__(self, networks: Sequence[ActivationNetwork], num_shared: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(*networks[0].backbone.blocks[:num_shared])
        self.own = nn.ModuleList(
            nn.Sequential(*network.backbone.blocks[num_shared:], network.head)
            for network in networks
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.shared(images)
        return tuple(own(features) for own in self.own)


class PartOfJoint(nn.Module):
    """One network of a joint one. Parts that are called in turn with one tensor share its pass.

    Args:
        joint: a module with the interface of `JointNetwork`.
        latest: list that all parts share, for the last images and the logits nobody has taken.
    """

    def __init__(
        self,
        joint: nn.Module,
        index: int,
        latest: list[tuple[torch.Tensor, dict[int, torch.Tensor]]],
    ) -> None:
        super().__init__()
        self.joint = joint
        self.index = index
        self._latest = latest

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns (B, C, h, w) logits of (B, 3, H, W) normalised images."""
        is_known = self._latest and self._latest[0][0] is images
        if not is_known or self.index not in self._latest[0][1]:
            # What nobody took, as after a group that did not fit into memory, is freed first.
            self._latest.clear()
            self._latest.append((images, dict(enumerate(self.joint(images)))))
        waiting = self._latest[0][1]
        logits = waiting.pop(self.index)
        if not waiting:
            self._latest.clear()
        return logits


def parts(joint: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Returns name -> network of each part of a joint network."""
    latest: list[tuple[torch.Tensor, dict[int, torch.Tensor]]] = []
    return {name: PartOfJoint(joint, index, latest) for index, name in enumerate(names)}


def grouped(networks: Mapping[str, nn.Module]) -> list[tuple[tuple[str, ...], nn.Module]]:
    """Returns names and network of each group: a joint network, or one network alone.

    Networks are joined if their first block with weights is equal. Other classes than
    `ActivationNetwork` stay alone.
    """
    found: list[tuple[tuple[str, ...], nn.Module]] = []
    waiting = dict(networks)
    while waiting:
        name, network = next(iter(waiting.items()))
        alike = {name: network}
        if type(network) is ActivationNetwork:
            alike |= {n: o for n, o in waiting.items() if num_equal_blocks(network, o)}
        for taken in alike:
            del waiting[taken]
        members = [o for o in alike.values() if isinstance(o, ActivationNetwork)]
        if len(alike) == 1:
            found.append(((name,), network))
        else:
            num_shared = min(num_equal_blocks(members[0], other) for other in members[1:])
            found.append((tuple(alike), JointNetwork(members, num_shared)))
    return found


def num_equal_blocks(first: nn.Module, second: nn.Module) -> int:
    """Returns how many leading blocks of two networks have the same layers and weights."""
    if not (type(first) is type(second) is ActivationNetwork):
        return 0
    number = 0
    for block, other in zip(first.backbone.blocks, second.backbone.blocks, strict=False):
        state, other_state = block.state_dict(), other.state_dict()
        # Strides and dilations are in the text.
        if repr(block) != repr(other) or state.keys() != other_state.keys():
            break
        if not all(torch.equal(value, other_state[key]) for key, value in state.items()):
            break
        number += 1
    return number
