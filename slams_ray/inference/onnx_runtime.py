"""Runs networks on CPUs with ONNX Runtime, which is faster than torch in float32."""

import importlib.util
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from slams_ray.errors import ConfigError, how_to_install
from slams_ray.inference.joint_network import JointNetwork
from slams_ray.networks.activation_network import ActivationNetwork

_INPUT = "images"
_AXES = {0: "batch", 2: "height", 3: "width"}


def check_onnxruntime() -> None:
    """Raises ConfigError if a package that `with_onnxruntime` needs is not installed."""
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"compute.cpu_networks onnxruntime needs the package {package}, which is not "
                f"installed: {how_to_install('export')}"
            )


def with_onnxruntime(network: nn.Module) -> nn.Module:
    """Returns a float32 `ActivationNetwork`, or a joint one, that ONNX Runtime computes on the CPU.

    Logits differ by rounding. Networks of other classes are returned as they are, because they also
    take labels or know only some sizes.
    """
    is_known = type(network) in (ActivationNetwork, JointNetwork)
    return OnnxRuntimeNetwork(network) if is_known else network


class OnnxRuntimeNetwork(nn.Module):
    """Maps (B, 3, H, W) images to what the given network does, with as many threads as torch.

    It can neither be trained nor moved to another device.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        self._is_joint = isinstance(network, JointNetwork)
        self._session = onnxruntime.InferenceSession(
            _exported(network), options, providers=["CPUExecutionProvider"]
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        found = self._session.run(None, {_INPUT: images.contiguous().numpy()})
        logits = tuple(map(torch.from_numpy, found))
        return logits if self._is_joint else logits[0]


def _exported(network: nn.Module) -> bytes:
    """The network as ONNX, for images of any number and size."""
    num_outputs = len(network.own) if isinstance(network, JointNetwork) else 1
    outputs = [f"logits{number}" for number in range(num_outputs)]
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        path = Path(directory) / "network.onnx"
        # torch advises its other exporter, which needs a further package.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network.eval(),
            (torch.zeros((2, 3, 64, 96)),),
            path,
            input_names=[_INPUT],
            output_names=outputs,
            dynamic_axes=dict.fromkeys([_INPUT, *outputs], _AXES),
            dynamo=False,
        )
        return path.read_bytes()
