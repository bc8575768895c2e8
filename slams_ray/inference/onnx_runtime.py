"""Runs networks on CPUs with ONNX Runtime, which needs half of torch's time in float32."""

import importlib.util
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from slams_ray.errors import ConfigError
from slams_ray.networks.activation_network import ActivationNetwork

_INPUT, _OUTPUT = "images", "logits"
_AXES = {0: "batch", 2: "height", 3: "width"}


def check_onnxruntime() -> None:
    """Raises ConfigError if a package that `with_onnxruntime` needs is not installed."""
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"compute.cpu_networks onnxruntime needs the package {package}, which is not "
                "installed: pip install 'slams-ray[export]'"
            )


def with_onnxruntime(network: nn.Module) -> nn.Module:
    """Returns a float32 `ActivationNetwork` on the CPU that ONNX Runtime computes.

    Logits differ by rounding. Networks of other classes are returned as they are, because they also
    take labels or know only some sizes.
    """
    return OnnxRuntimeNetwork(network) if type(network) is ActivationNetwork else network


class OnnxRuntimeNetwork(nn.Module):
    """Maps (B, 3, H, W) images to logits as the given network does, with as many threads as torch.

    It can neither be trained nor moved to another device.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            _exported(network), options, providers=["CPUExecutionProvider"]
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (logits,) = self._session.run([_OUTPUT], {_INPUT: images.contiguous().numpy()})
        return torch.from_numpy(logits)


def _exported(network: nn.Module) -> bytes:
    """The network as ONNX, for images of any number and size."""
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        path = Path(directory) / "network.onnx"
        # torch advises its other exporter, which needs a further package.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network.eval(),
            (torch.zeros((2, 3, 64, 96)),),
            path,
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_axes={_INPUT: _AXES, _OUTPUT: _AXES},
            dynamo=False,
        )
        return path.read_bytes()
