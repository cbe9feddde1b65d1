"""Runs a torch model on whatever devices there are; what every backend shares."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor, nn

from app.engine.embedders import Floats, Pixels, Preparation

# Of larger batches the C library gives each layer's memory back at once, in threads from four
# 224-pixel pictures on: fetching fresh pages for every layer would cost a sixth more time.
CPU_BATCH_SIZE = 2
GPU_BATCH_SIZE = 256
TEXTS_AT_ONCE = 64

Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class Replica:
    """A network on one device, with what its input is normalised by there."""

    network: nn.Module
    device: torch.device
    mean: Tensor
    std: Tensor


class TorchEmbedder:
    """An embedder around a network that maps normalised pictures to one vector each.

    A network that knows words has an `encode_text` for what `tokenize` makes of texts. Several CUDA
    devices have a replica each, and a thread takes the one that is free.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        revision: str,
        dimension: int,
        prepare: Preparation,
        mean: Numbers,
        std: Numbers,
        device: str,
        tokenize: Callable[[list[str]], Tensor] | None = None,
    ) -> None:
        self.name = name
        self.revision = revision
        self.dimension = dimension
        self.prepare = prepare
        self._tokenize = tokenize
        self.embed_text: Callable[[list[str]], Floats] | None = (
            None if tokenize is None else self._embed_text
        )
        devices = choose_devices(device)
        on_cpu = devices == [torch.device("cpu")]
        self._precision = torch.float32 if on_cpu else torch.float16
        self.batch_size = CPU_BATCH_SIZE if on_cpu else GPU_BATCH_SIZE
        self.streams = count_cores() if on_cpu else len(devices)
        if on_cpu:
            # Whole batches run side by side on a core each: no core waits for another in a layer.
            torch.set_num_threads(1)
            devices = devices * self.streams
        self._free: SimpleQueue[Replica] = SimpleQueue()
        network = network.eval().to(self._precision).to(memory_format=torch.channels_last)
        for place in devices:
            # On the CPU every thread uses the same network.
            own = network if on_cpu else deepcopy(network).to(place)
            # For values 0 to 255, and for a row of pixels: several times as fast as by colour.
            row_mean, row_std = (
                torch.tensor(numbers, device=place).repeat(prepare.crop_side) * 255
                for numbers in (mean, std)
            )
            self._free.put(Replica(own, place, row_mean, row_std))

    def embed_images(self, prepared: Pixels) -> Floats:
        """Embed (b, side, side, 3) uint8 prepared pictures: (b, dimension) float32 unit rows.

        What does not fit into the device's memory is embedded in smaller batches from then on.
        Raises RuntimeError when even one picture does not fit.
        """
        vectors = np.empty((len(prepared), self.dimension), dtype=np.float32)
        start = 0
        with self._replica() as replica:
            while start < len(prepared):
                batch = prepared[start : start + self.batch_size]
                try:
                    vectors[start : start + len(batch)] = self._embed_batch(replica, batch)
                    start += len(batch)
                    continue
                except RuntimeError as error:  # only CUDA has a class of its own for this
                    if "out of memory" not in str(error).lower() or len(batch) == 1:
                        raise
                # Only here, when the error no longer holds on to what the batch had allocated.
                self.batch_size = min(self.batch_size, len(batch) // 2)
                if replica.device.type != "cpu":
                    torch.accelerator.empty_cache()
        return vectors

    def _embed_batch(self, replica: Replica, batch: Pixels) -> Floats:
        with torch.inference_mode():
            pixels = torch.from_numpy(batch).to(replica.device)
            rows = pixels.flatten(start_dim=2).float().sub_(replica.mean).div_(replica.std)
            pictures = rows.view(pixels.shape).permute(0, 3, 1, 2)  # channels last already
            return _to_unit_rows(replica.network(pictures.to(self._precision)))

    def _embed_text(self, texts: list[str]) -> Floats:
        """Embed t texts: (t, dimension) float32 unit rows, to be compared with those of images."""
        assert self._tokenize is not None  # noqa: S101 - else `embed_text` is None  # nosec B101
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        with self._replica() as replica, torch.inference_mode():
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                some = texts[start : start + TEXTS_AT_ONCE]
                tokens = self._tokenize(some).to(replica.device)
                encode_text: Callable[[Tensor], Tensor] = replica.network.encode_text  # type: ignore[assignment]
                vectors[start : start + len(some)] = _to_unit_rows(encode_text(tokens))
        return vectors

    @contextmanager
    def _replica(self) -> Iterator[Replica]:
        replica = self._free.get()
        try:
            yield replica
        finally:
            self._free.put(replica)


def choose_devices(wanted: str) -> list[torch.device]:
    """The devices named, with commas between; with `auto` the best: every cuda, else mps, else cpu.

    Raises torch's RuntimeError for a name it does not know.
    """
    if wanted != "auto":
        return [torch.device(name.strip()) for name in wanted.split(",")]
    if torch.cuda.is_available():
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        return [torch.device("mps")]
    return [torch.device("cpu")]


def try_devices(wanted: str) -> list[str]:
    """The names of the devices that `wanted` means, each of them tried.

    Raises RuntimeError for what is not there, AssertionError for what torch was built without.
    """
    devices = choose_devices(wanted)
    for device in devices:
        torch.zeros(1, device=device)
    return [str(device) for device in devices]


def count_cores() -> int:
    """The processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _to_unit_rows(features: Tensor) -> Floats:
    unit: Tensor = nn.functional.normalize(features.float(), dim=1)
    vectors: Floats = unit.cpu().numpy()
    return vectors
