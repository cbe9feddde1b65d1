"""Runs a torch model on whatever device there is; what every backend shares."""

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from app.engine.embedders import Floats, Pixels, Preparation

# Of larger batches the C library gives each layer's memory back at once, in threads from four
# 224-pixel pictures on: fetching fresh pages for every layer would cost a sixth more time.
CPU_BATCH_SIZE = 2
GPU_BATCH_SIZE = 256


class TorchEmbedder:
    """An embedder around a network that maps normalised pictures to one vector each."""

    embed_text: Callable[[list[str]], Floats] | None = None

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        revision: str,
        dimension: int,
        prepare: Preparation,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: str,
    ) -> None:
        self.name = name
        self.revision = revision
        self.dimension = dimension
        self.prepare = prepare
        self._device = choose_device(device)
        is_cpu = self._device.type == "cpu"
        self._precision = torch.float32 if is_cpu else torch.float16
        self.batch_size = CPU_BATCH_SIZE if is_cpu else GPU_BATCH_SIZE
        self.streams = count_cores() if is_cpu else 1
        if is_cpu:
            # Whole batches run side by side on a core each: no core waits for another in a layer.
            torch.set_num_threads(1)
        network = network.eval().to(self._device, self._precision)
        self._network: nn.Module = network.to(memory_format=torch.channels_last)
        # For values 0 to 255, and for a row of pixels: several times as fast as by colour.
        side = prepare.crop_side
        self._mean = torch.tensor(mean, device=self._device).repeat(side) * 255
        self._std = torch.tensor(std, device=self._device).repeat(side) * 255

    def embed_images(self, prepared: Pixels) -> Floats:
        """Embed (b, side, side, 3) uint8 prepared pictures: (b, dimension) float32 unit rows.

        What does not fit into the device's memory is embedded in smaller batches from then on.
        Raises RuntimeError when even one picture does not fit.
        """
        vectors = np.empty((len(prepared), self.dimension), dtype=np.float32)
        start = 0
        while start < len(prepared):
            batch = prepared[start : start + self.batch_size]
            try:
                vectors[start : start + len(batch)] = self._embed_batch(batch)
                start += len(batch)
                continue
            except RuntimeError as error:  # only CUDA has a class of its own for this
                if "out of memory" not in str(error).lower() or len(batch) == 1:
                    raise
            # Only here, when the error no longer holds on to what the failed batch had allocated.
            self.batch_size = len(batch) // 2
            if self._device.type != "cpu":
                torch.accelerator.empty_cache()
        return vectors

    def _embed_batch(self, batch: Pixels) -> Floats:
        with torch.inference_mode():
            pixels = torch.from_numpy(batch).to(self._device)
            rows = pixels.flatten(start_dim=2).float().sub_(self._mean).div_(self._std)
            pictures = rows.view(pixels.shape).permute(0, 3, 1, 2)  # channels last already
            features: Tensor = self._network(pictures.to(self._precision))
            unit: Tensor = nn.functional.normalize(features.float(), dim=1)
            vectors: Floats = unit.cpu().numpy()
            return vectors


def choose_device(wanted: str) -> torch.device:
    """The device named, or with `auto` the best there is: cuda, else mps, else cpu.

    Raises torch's RuntimeError for a name it does not know.
    """
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def count_cores() -> int:
    """The processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
