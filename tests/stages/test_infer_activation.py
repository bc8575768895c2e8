import pytest

from slams_ray.config import ActivationInferenceConfig, ComputeConfig
from slams_ray.stages.infer_activation import is_faster_with_onnxruntime


@pytest.mark.ray
@pytest.mark.parametrize(
    ("precision", "cpu_networks", "expected"),
    [
        ("float32", "torch", True),
        ("bfloat16", "torch", False),
        ("float32", "onnxruntime", False),
    ],
)
def test_onnxruntime_is_advised_where_torch_computes_in_float32_on_cpus(
    ray_cluster: None, precision: str, cpu_networks: str, expected: bool
) -> None:
    inference = ActivationInferenceConfig(precision=precision)
    compute = ComputeConfig(device="cpu", cpu_networks=cpu_networks)
    assert is_faster_with_onnxruntime(inference, compute) == expected
