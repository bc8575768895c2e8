"""What number formats a device computes in."""

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has native bfloat16. Emulation is slower than float32."""
    if device.type == "cuda":
        # By default, torch counts emulation as support.
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
