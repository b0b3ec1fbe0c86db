"""Train the text tower of the miniature vision-language source: python nbs/experiments/miniature.py [--hold-out 100] [--out FILE]

It reads WordNet's names and definitions of ImageNet's labels and the rows of the embedded classifier's last layer; no image. `--hold-out` leaves labels out, to see how well
their rows are found from their names. Adds a row to miniature.csv, which 72_miniature.ipynb reads. Two minutes on one core of a server; the package's file is that of
`--out vrlit/data/miniature.safetensors`, the rest by default."""
import argparse, csv, random, time
from pathlib import Path

import torch
import torch.nn.functional as F
from rows import write
from safetensors.torch import save_file

import vrlit as vr

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
templates = ['This is a photo of a {}.', *vr.ensemble_templates()]

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
tower, tokenizer = vr.TextTower(dropout=args.dropout), vr.HashedPieces()
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
row = dict(seed=args.seed, steps=args.steps, seconds=round(time.perf_counter() - start))
for what, some in dict(trained=known, held_out=torch.tensor(held, dtype=torch.int64)).items():
    r = rank[some]
    row |= {what: len(r)} | ({f'{what}_first': round((r == 0).float().mean().item(), 4), f'{what}_ten': round((r < 10).float().mean().item(), 4),
                              f'{what}_median': int(r.median()) + 1} if len(r) else {})
print(row)
file = Path(__file__).with_suffix('.csv')
rows = list(csv.DictReader(file.open())) if file.exists() else []
write(file, [*rows, row], ['seed', 'steps', 'seconds', *(f'{what}{end}' for what in ('trained', 'held_out') for end in ('', '_first', '_ten', '_median'))])
if args.out: save_file({k: v.half().contiguous() for k, v in tower.state_dict().items()}, args.out)
