"""Train the text tower of the miniature vision-language source: python miniature.py [--hold-out 100] [--out FILE]

It reads WordNet's names and definitions of ImageNet's labels and the rows of the embedded classifier's last layer; no image. `--hold-out` leaves labels out, and
prints how well their rows are found from their names. Seven minutes on one slow core."""
import argparse
import random
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import vrlit as vr
from vrlit.clip.miniature import HashedPieces, TextTower
from vrlit import ensemble_templates

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--hold-out', type=int, default=0, help='so many labels')
parser.add_argument('--out', help='a .safetensors to write')
for name, default in dict(steps=600, batch=128, lr=2e-3, decay=.05, dropout=.1, words=.15, scale=15., smoothing=0., seed=0).items():
    parser.add_argument(f'--{name}', type=type(default), default=default, help=f'{default}')
args = parser.parse_args()
draw = random.Random(args.seed)
torch.manual_seed(args.seed)

labels = vr.imagenet_labels()
W = vr.load_source().model.classifier.weight.detach()
W = F.normalize(W - W.mean(0), dim=1)                                 # [1000, 256]
about = [text.partition(': ') for text in vr.descriptions(labels)]
names = [list(dict.fromkeys(given.split(', '))) for given, _, _ in about]
definitions = [told.split() for _, _, told in about]
templates = ['This is a photo of a {}.', *ensemble_templates()]

def text(s):
    "Something that is said of label s: a name, a window of its definition, or both; half of the first two in a template; some words are lost"
    kind, name, words = draw.random(), draw.choice([labels[s], *names[s]]), definitions[s]
    if kind < .4 and words:
        n = draw.randint(1, min(12, len(words)))
        start = draw.randrange(len(words) - n + 1)
        name = ' '.join(words[start:start + n])
    elif kind > .8: name = f'{name}, {" ".join(words)}'
    if kind < .8 and draw.random() < .5: name = draw.choice(templates).format(name)
    kept = [word for word in name.split() if draw.random() > args.words]
    return ' '.join(kept) or name

held = sorted(draw.sample(range(1000), args.hold_out))
known = torch.tensor([s for s in range(1000) if s not in set(held)])
tower, tokenizer = TextTower(dropout=args.dropout), HashedPieces()
optimizer = torch.optim.AdamW(tower.parameters(), args.lr, weight_decay=args.decay)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=.1)
start = time.perf_counter()
for step in range(args.steps):
    target = torch.tensor(draw.choices(range(len(known)), k=args.batch))
    q = F.normalize(tower(tokenizer([text(s) for s in known[target].tolist()])), dim=1)
    loss = F.cross_entropy(args.scale * q @ W[known].T, target, label_smoothing=args.smoothing)
    optimizer.zero_grad(); loss.backward(); optimizer.step(); schedule.step()
    if (step + 1) % 100 == 0: print(f'step {step + 1}, loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s', flush=True)

tower.eval()
with torch.no_grad(): similar = F.normalize(tower(tokenizer(labels)), dim=1) @ W.T # [1000, 1000]
rank = (similar > similar.diagonal()[:, None]).sum(1)
for what, some in dict(trained=known, held_out=torch.tensor(held, dtype=torch.int64)).items():
    if len(some): print(f'{what}: {len(some)} names, nearest row is their own {(rank[some] == 0).float().mean():.1%}, '
                        f'among ten {(rank[some] < 10).float().mean():.1%}, median rank {rank[some].median() + 1} of 1,000')
if args.out: save_file({k: v.half().contiguous() for k, v in tower.state_dict().items()}, args.out)
