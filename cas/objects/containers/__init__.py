"""Tensor files of others: where in a safetensors, npy or torch.save file each tensor lies."""
