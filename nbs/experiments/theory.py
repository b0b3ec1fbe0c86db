"""What theory bounds and what training finds: rows of risks.csv and controls.csv, kept as soon as each is finished.

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
SMM = dict(lr=dict(pattern=.03, mask_generator=.01))
# name: (prompt from source and seed, arguments of fit)
PROMPTS = {
    'padding': (lambda s, _: vr.Padding(s), dict(lr=.3)),
    'narrow': (lambda s, _: vr.Watermark(s, 'narrow'), dict(lr=.03)),
    'medium': (lambda s, _: vr.Watermark(s, 'medium'), dict(lr=.03)),
    'low rank': (lambda s, seed: vr.LowRank(s, seed=seed), dict(lr=.03)),
    'full': (lambda s, _: vr.Watermark(s), dict(lr=.03)),
    'SMM, 1 channel': (lambda s, seed: vr.SMM(s, channels=1, seed=seed), SMM),
    'SMM': (lambda s, seed: vr.SMM(s, seed=seed), SMM),
    'SMM, random body': (lambda s, seed: vr.SMM(s, train_body=False, seed=seed), SMM),
    'only f_mask': (lambda s, seed: vr.SamplePattern(s, seed=seed), dict(lr=.01))}
SETTINGS = dict(epochs=8, batch_size=32, milestones=(.5, .75), device='cpu', progress=False)

def few(task, seed):
    "60 training images per class"
    return vr.load_task(task).few_shot(60, seed=seed)

def load(name, task, seed):
    "The embedded source, or an architecture of timm with random weights, at 64 pixels"
    if name == 'embedded': return vr.load_source(size=64)
    f = vr.load_source(f'timm/{name}', weights=False, size=64)
    return vr.random_source(f, f.normalise(vr.unit(vr.resize(task.train[:256][0], 64))), seed)

# ---- the approximation error on 200 images: bounds along a chain of spaces

SPACES = {'padding': lambda s, seed: vr.Padding(s), 'narrow': lambda s, seed: vr.Watermark(s, 'narrow'), 'medium': lambda s, seed: vr.Watermark(s, 'medium'),
          'low rank': lambda s, seed: vr.LowRank(s, seed=seed), 'full': lambda s, seed: vr.Watermark(s), 'full, again': lambda s, seed: vr.Watermark(s),
          'only f_mask': lambda s, seed: vr.SamplePattern(s, seed=seed), 'SMM, 1 channel': lambda s, seed: vr.SMM(s, channels=1, seed=seed), 'SMM': lambda s, seed: vr.SMM(s, seed=seed)}

@functools.cache
def chain(task, seed):
    "Bounds of all spaces, with a mapping that is made once from the images as they are"
    target, source = few(task, seed), load('embedded', None, seed)
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

# ---- the control: the same training on a source that knows nothing

def controlled(_, task, source, prompt, seed):
    target = few(task, seed)
    f_pre, (build, arguments) = load(source, target, seed), PROMPTS[prompt]
    model = vr.Reprogrammed(build(f_pre, seed), f_pre, vr.ILM(f_pre.S, target.K))
    controls = () if source != 'embedded' else ('random', 'constant') if prompt == 'full' else 'random'
    compared = vr.compare(model, target, controls, seed=seed, **SETTINGS | arguments)
    result, of = compared.result, lambda k: round(compared.controls[k].selected['test_acc'], 4) if k in compared.controls else ''
    return dict(task=task, source=source, prompt=prompt, seed=seed, trained=sum(p.numel() for p in model.trained().values()),
                loss=round(result.last['loss'], 4), train=round(result.last['train_acc'], 4), test=round(result.selected['test_acc'], 4),
                random=of('random'), constant=of('constant'), seconds=round(sum(r['seconds'] for r in result.log), 1))

if __name__ == '__main__':
    make(HERE / 'risks.csv', 'task seed space smaller risk zero_one scratch gain late'.split(), ((t, seed, k) for seed in SEEDS for t in TASKS for k in SPACES), bounded)
    make(HERE / 'controls.csv', 'task source prompt seed trained loss train test random constant seconds'.split(),
         ((t, f, p, seed) for seed in SEEDS for t in TASKS for f in ('embedded', 'test_vit', 'test_resnet') for p in PROMPTS), controlled)
