"""Train the vision encoder on pictures only: masked autoencoding plus a small contrastive term.

Two views of a scene (shifted, zoomed, mirrored, recoloured) are cut into 100 patches; the encoder
sees 25 of each, no index twice. A light decoder paints hidden patches (MAE, arXiv 2111.06377;
loss on patch-normalised pixels), and the mean features of the two views must find each other among
the batch (as in CAN, arXiv 2210.16870). No word, no label, no caption is ever seen.

    L = L_mae + w * InfoNCE(view A, view B)

    python training/pictos/train_encoder.py --work DIR --minutes 60 [--resume]
    python training/pictos/train_encoder.py --work DIR --cooldown 400      # writes DIR/encoder/
"""

import torch
import torch.nn.functional as F
from common import Run, arguments, weight_groups
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from mmlens.pictos.world import World

SIDE, PATCH, WIDTH, SEEN, PAINTED = 80, 8, 192, 25, 30
CELLS = (SIDE // PATCH) ** 2


def new_encoder() -> ViTModel:
    """6 layers of 192: 2.7 M parameters, 100 patches and a class token."""
    config = ViTConfig(hidden_size=WIDTH, num_hidden_layers=6, num_attention_heads=6,
                       intermediate_size=4 * WIDTH, image_size=SIDE, patch_size=PATCH)  # fmt: skip
    return ViTModel(config, add_pooling_layer=False)


def encode(vit: ViTModel, images: Tensor, seen: Tensor) -> Tensor:
    """Float[batch, 1 + seen, width]: the encoder's output for the patches of these indices only."""
    place = vit.embeddings.position_embeddings
    x = vit.embeddings.patch_embeddings(images * 2 - 1) + place[:, 1:]
    x = x.gather(1, seen[..., None].expand(-1, -1, WIDTH))
    start = vit.embeddings.cls_token + place[:, :1]
    x = torch.cat([start.expand(len(x), -1, -1), x], 1)
    for layer in vit.layers:
        x = layer(x)
    return vit.layernorm(x)


class Decoder(nn.Module):
    """Paints hidden patches from what the encoder makes of the seen ones."""

    def __init__(self, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.enter = nn.Linear(WIDTH, width)
        self.blank = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, CELLS, width) * 0.02)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True,
                                           norm_first=True)  # fmt: skip
        self.blocks = nn.TransformerEncoder(
            block, layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.paint = nn.Linear(width, 3 * PATCH**2)

    def forward(self, features: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """Float[batch, hidden, 192 pixels]."""
        place = self.place.expand(len(seen), -1, -1)
        known = self.enter(features[:, 1:]) + take(place, seen)
        blank = self.blank + take(place, hidden)
        return self.paint(self.blocks(torch.cat([known, blank], 1))[:, seen.shape[1] :])


class Head(nn.Sequential):
    """Mean patch features -> unit vectors in which two views of one scene shall meet."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, 384), nn.GELU(), nn.Linear(384, 128))

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(super().forward(features[:, 1:].mean(1)), dim=-1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """x[b, index[b, i]]: Float[batch, i, width]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def view(images: Tensor, hardest: float = 1.0) -> Tensor:
    """Another look at each scene: zoom, shift, mirror; gain and offset of each colour."""
    n, device = len(images), images.device
    zoom = 1 + (torch.rand(n, device=device) - 0.5) * 0.5 * hardest
    flip = torch.where(torch.rand(n, device=device) < 0.25 * hardest, -1.0, 1.0)
    shift = (torch.rand(n, 2, device=device) - 0.5) * 0.3 * hardest
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom * flip, zoom, shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    gain = 1 + (torch.rand(n, 3, 1, 1, device=device) - 0.5) * 0.8 * hardest
    offset = (torch.rand(n, 3, 1, 1, device=device) - 0.5) * 0.4 * hardest
    return ((moved - 0.5) * gain + 0.5 + offset).clamp(0, 1)


def patch_pixels(images: Tensor) -> Tensor:
    """Float[batch, 100, 192]: pixels of each patch, normalised within the patch."""
    cells = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2)
    return (cells - cells.mean(-1, keepdim=True)) / (cells.var(-1, keepdim=True) + 1e-3).sqrt()


def mae(vit: ViTModel, decoder: Decoder, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Loss on the painted patches and the features of the seen ones (the first of `order`)."""
    seen, hidden = order[:, :SEEN], order[:, 2 * SEEN : 2 * SEEN + PAINTED]
    features = encode(vit, images, seen)
    painted = decoder(features, seen, hidden)
    return F.mse_loss(painted, take(patch_pixels(images), hidden)), features


def contrast(one: Tensor, other: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE over the batch, both ways."""
    likeness = one @ other.T / temperature
    target = torch.arange(len(one), device=one.device)
    return (F.cross_entropy(likeness, target) + F.cross_entropy(likeness.T, target)) / 2


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=1e-3, batch=96)
    parser.add_argument(
        "--contrast", type=float, default=0.2, help="weight w of the contrastive term"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    vit, decoder, head = (m.to(args.device) for m in (new_encoder(), Decoder(), Head()))
    adam = torch.optim.AdamW(weight_groups([vit, decoder, head], 0.05), args.lr, betas=(0.9, 0.95))
    run = Run("encoder", args, vit=vit, decoder=decoder, head=head, optimiser=adam)
    world = World("train", args.seed, SIDE, device=args.device)
    while run.goes_on():
        torch.manual_seed(args.seed * 10**7 + run.step)
        images = world.batch(range(run.step * args.batch, (run.step + 1) * args.batch)).images
        one, other = view(images, 0.6), view(images)
        order = torch.rand(len(images), CELLS, device=args.device).argsort(1)
        swapped = torch.cat([order[:, SEEN : 2 * SEEN], order[:, :SEEN], order[:, 2 * SEEN :]], 1)
        loss, features = mae(vit, decoder, torch.cat([one, other]), torch.cat([order, swapped]))
        meet = contrast(*head(features).chunk(2))
        run.update(adam, loss + args.contrast * meet)
        run.note(mae=loss.item(), contrast=meet.item())
    if args.cooldown:
        vit.save_pretrained(args.work / "encoder")
    else:
        run.save()


if __name__ == "__main__":
    main()
