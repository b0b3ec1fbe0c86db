"""Bounds of the approximation error along a chain of spaces: rows of risks.csv, kept as soon as each is finished.

    python nbs/experiments/theory.py

makes the rows that are missing, and may be stopped and started again. 74_theory.ipynb reads them.
"""
import functools
from pathlib import Path

import torch
from rows import make

import vrlit as vr

HERE = Path(__file__).parent
TASKS, SEEDS = ('digits', 'squares'), range(3)

def few(task, seed):
    "60 training images per class"
    return vr.load_task(task).few_shot(60, seed=seed)

SPACES = {'padding': lambda s, seed: vr.Padding(s), 'narrow': lambda s, seed: vr.Watermark(s, 'narrow'), 'medium': lambda s, seed: vr.Watermark(s, 'medium'),
          'low rank': lambda s, seed: vr.LowRank(s, seed=seed), 'full': lambda s, seed: vr.Watermark(s), 'full, again': lambda s, seed: vr.Watermark(s),
          'only f_mask': lambda s, seed: vr.SamplePattern(s, seed=seed), 'SMM, 1 channel': lambda s, seed: vr.SMM(s, channels=1, seed=seed), 'SMM': lambda s, seed: vr.SMM(s, seed=seed)}

@functools.cache
def chain(task, seed):
    "Bounds of all spaces, with a mapping that is made once from the images as they are"
    target, source = few(task, seed), vr.load_source(size=64)
    split, mapping = target.train.take(torch.arange(200)), vr.FLM(source.S, target.K)
    vr.update_mapping(vr.Reprogrammed(vr.Watermark(source), source, mapping), split)
    rows = vr.risk_chain(source, mapping, split, {k: lambda _, f=f: f(source, seed) for k, f in SPACES.items()}, restarts=1,
                         lr=dict(pattern=.1, mask_generator=.003, left=.1, right=.1), steps=100, progress=False)
    return rows, {b['space']: b for b in vr.bounds(rows)}

def bounded(_, task, seed, space):
    rows, told = chain(task, seed)
    own = {bool(r['smaller']): r for r in rows if r['space'] == space}
    short = lambda v: '' if v is None else round(v, 4)
    return dict(task=task, seed=seed, space=space, smaller=own[True]['smaller'] if True in own else '', risk=short(told[space]['risk']), zero_one=told[space]['zero_one'],
                scratch=short(own[False]['risk']), gain=short(told[space]['gain']), late=short(min(own.values(), key=lambda r: r['risk'])['late']))

if __name__ == '__main__':
    make(HERE / 'risks.csv', 'task seed space smaller risk zero_one scratch gain late'.split(), ((t, seed, k) for seed in SEEDS for t in TASKS for k in SPACES), bounded)
