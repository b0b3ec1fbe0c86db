"""All prompts under one mapping: a row of prompts.csv for each training, kept as soon as it is finished.

    python nbs/experiments/prompts.py

makes the rows that are missing, and may be stopped and started again. 70_prompts.ipynb and the page on SMM read them.
"""
from pathlib import Path

from rows import make

import vrlit as vr
from vrlit.recipes import CLEAN, PAPER

FILE = Path(__file__).with_suffix('.csv')
SETTINGS = dict(epochs=8, batch_size=64, milestones=(.5, .75), device='cpu', progress=False)

SMM = dict(lr=dict(pattern=.03, mask_generator=.01))

# name: (prompt from source and seed, arguments of fit)
TABLE = {
    'padding': (lambda s, _: vr.Padding(s), dict(lr=.3)),
    'scale': (lambda s, _: vr.Scale(s, inner=s.size // 2), dict(lr=dict(pattern=.3, scale=.003))),
    'EVP': (lambda s, _: vr.EVP(s), dict(optimizer='sgd', lr=3., schedule='cosine-epoch')),
    'border, noise': (lambda s, seed: vr.Watermark(s, round(30 / 224 * s.size), init=1., seed=seed), dict(lr=.03)),
    'patch': (lambda s, seed: vr.Patch(s, seed=seed), dict(lr=.03)),
    'random patch': (lambda s, seed: vr.Patch(s, random=True, seed=seed), dict(lr=.03)),
    'narrow': (lambda s, _: vr.Watermark(s, 'narrow'), dict(lr=.03)),
    'medium': (lambda s, _: vr.Watermark(s, 'medium'), dict(lr=.03)),
    'full': (lambda s, _: vr.Watermark(s), dict(lr=.03)),
    'full, TrivialAugment': (lambda s, _: vr.Watermark(s), dict(lr=.03, augment='trivial')),
    'low rank': (lambda s, seed: vr.LowRank(s, seed=seed), dict(lr=.03)),
    'affine, colour': (lambda s, _: vr.AffineColor(s), dict(lr=.03)),
    'SMM, 1 channel': (lambda s, seed: vr.SMM(s, channels=1, seed=seed), SMM),
    'SMM': (lambda s, seed: vr.SMM(s, seed=seed), SMM)}
PATCHES = {f'SMM, patch {p}': (lambda s, seed, p=p: vr.SMM(s, patch=p, layers=6, seed=seed), SMM) for p in (4, 8, 32)}
# crops as in the papers, 32 pixels more of 224
RECIPES = {f'{name}, {kind}': (TABLE[name][0], TABLE[name][1] | dict(augment='+14') | choice)
           for name in ('full', 'SMM') for kind, choice in (('paper', PAPER), ('clean', CLEAN))}

def wanted():
    "(task, source, prompt, seed) of each row"
    for seed in range(3):
        yield from ((task, 'embedded', p, seed) for task in ('digits', 'squares') for p in TABLE)
        yield from (('digits', 'embedded', p, seed) for p in PATCHES)
        yield from (('digits', 'random', p, seed) for p in ('full', 'SMM'))
        yield from (('digits', 'embedded', p, seed) for p in RECIPES)

def run(_, task, source, prompt, seed):
    f_pre, target = vr.load_source(), vr.load_task(task)
    if source == 'random': f_pre = vr.random_source(f_pre, f_pre.normalise(vr.unit(vr.resize(target.train[:256][0], f_pre.size))), seed)
    build, arguments = (TABLE | PATCHES | RECIPES)[prompt]
    model = vr.Reprogrammed(build(f_pre, seed), f_pre, vr.ILM(f_pre.S, target.K))
    result = vr.fit(model, target, seed=seed, **SETTINGS | arguments)
    return dict(task=task, source=source, prompt=prompt, seed=seed, epochs=SETTINGS['epochs'], trained=sum(p.numel() for p in model.trained().values()),
                train=round(result.last['train_acc'], 4), seconds=round(sum(r['seconds'] for r in result.log), 1),
                **{k: round(getattr(result, k)['test_acc'], 4) for k in ('selected', 'last', 'test_best')})

COLUMNS = 'task source prompt seed epochs trained train seconds selected last test_best'.split()

if __name__ == '__main__': make(FILE, COLUMNS, wanted(), run)
