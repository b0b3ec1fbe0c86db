"""What theory bounds and what training finds: rows of controls.csv, kept as soon as each is finished.

    python nbs/experiments/theory.py

makes the rows that are missing, and may be stopped and started again. 74_theory.ipynb reads them.
"""
from pathlib import Path

from prompts import SMM, TABLE
from rows import make

import vrlit as vr

HERE = Path(__file__).parent
TASKS, SEEDS = ('digits', 'squares'), range(3)
PROMPTS = {k: TABLE[k] for k in ('padding', 'narrow', 'medium', 'low rank', 'full', 'SMM, 1 channel', 'SMM')} | {
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
    return vr.random_source(f, f.normalize(vr.unit(vr.resize(task.train[:256][0], 64))), seed)

# ---- the control: the same training on a source that knows nothing

def controlled(_, task, source, prompt, seed):
    target = few(task, seed)
    f_pre, (build, arguments) = load(source, target, seed), PROMPTS[prompt]
    model = vr.Reprogrammed(build(f_pre, seed), f_pre, vr.ILM(f_pre.S, target.K))
    control = () if source != 'embedded' else ('random', 'constant') if prompt == 'full' else 'random'
    result = vr.fit(model, target, seed=seed, control=control, **SETTINGS | arguments)
    of = lambda k: round(result.controls[k].selected['test_acc'], 4) if k in result.controls else ''
    return dict(task=task, source=source, prompt=prompt, seed=seed, trained=sum(p.numel() for p in model.trained().values()),
                loss=round(result.last['loss'], 4), train=round(result.last['train_acc'], 4), test=round(result.selected['test_acc'], 4),
                random=of('random'), constant=of('constant'), seconds=round(sum(r['seconds'] for r in result.log), 1))

if __name__ == '__main__':
    make(HERE / 'controls.csv', 'task source prompt seed trained loss train test random constant seconds'.split(),
         ((t, f, p, seed) for seed in SEEDS for t in TASKS for f in ('embedded', 'test_vit', 'test_resnet') for p in PROMPTS), controlled)
