"""How published figures were made, by name: network, resizing and images (docs/metrics.md).

Figures of different protocols are different quantities: the name stands in front of the columns of
`eval.csv`, and in tables, JSON and reports. Images are of 8 bits in all of them.
"""

from typing import Literal, NamedTuple

from thermo_ebm.errors import UserError

MAX_IMAGES = 4500  # of each set unless more are requested; the number of the paper's metrics
# Of sets of more images only the FID is computed: the other metrics need all pairs of images.
MAX_ALL_METRICS = 12_000


class Protocol(NamedTuple):
    """What a protocol fixes; "" and 0 are left to the user."""

    name: str
    features: str
    resize: str
    num_images: int  # generated ones
    max_images: int  # of a set, if the user asks for no number; 0 for all
    reference: Literal["held-out", "training"]
    source: str


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("default", "", "", 0, MAX_IMAGES, "held-out", "this program"),
        Protocol(
            *("pang2020", "inception_v3", "tensorflow", 50_000, 0, "training"),
            source="Pang et al. 2020: 50,000 samples, all training images, TTUR's graph",
        ),
        Protocol(
            *("pytorch_fid", "inception_v3", "bilinear", 0, 0, "held-out"),
            source="pytorch-fid 0.3: all images of two folders",
        ),
        Protocol(
            *("clean_fid", "inception_v3", "antialias", 0, 0, "held-out"),
            source="clean-fid 0.1, mode clean: all images of two folders",
        ),
        Protocol(
            *("dgm_eval", "dinov2_vitl14", "pillow", 0, 50_000, "held-out"),
            source="dgm-eval: DINOv2 ViT-L/14, at most 50,000 images of each set",
        ),
    )
}


def find(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
      UserError: there is none.
    """
    if name not in PROTOCOLS:
        raise UserError(f"protocol={name}: must be one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
