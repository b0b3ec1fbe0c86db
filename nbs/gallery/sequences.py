"""Splice junctions as pictures: rows of sequences.csv, kept as soon as each is finished.

    python nbs/gallery/sequences.py

makes the rows that are missing, and may be stopped and started again. 63_sequences.ipynb reads them. Nothing is
selected: the last of the epochs counts.
"""
import functools, sys
from pathlib import Path

import torch
from sklearn.datasets import load_sample_image

import vrlit as vr
from vrlit.gallery.sequences import DealtLabels, SequencePrompt, load_splice

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'experiments'))
from rows import make

COLUMNS = 'source base mapping seed epochs numbers train test before seconds'.split()

@functools.cache
def source(kind):
    real = vr.load_source('embedded', size=128)
    return real if kind == 'real' else vr.random_source(real, SequencePrompt(real, 60)(load_splice().train.x[:64]).detach())

def photograph():
    x = torch.from_numpy(load_sample_image('china.jpg')[100:420, 200:520].copy()).permute(2, 0, 1)
    return torch.nn.functional.interpolate(x[None] / 255, size=(128, 128), mode='area')[0]

def trained(_, kind, base, mapping, seed, epochs):
    task, f_pre = load_splice(val=None), source(kind)
    prompt = SequencePrompt(f_pre, 60, base=photograph() if base == 'photograph' else None, seed=seed)
    first = prompt(task.train.x[:1])[0].detach()
    f_out = DealtLabels(f_pre.S, 3, f_pre, first) if mapping == 'dealt' else vr.Discriminant(f_pre.S, 3)
    model = vr.Reprogrammed(prompt, f_pre, f_out)
    result = vr.fit(model, task, **SequencePrompt.recipes['example'] | dict(epochs=epochs), keep='last', seed=seed, progress=False)
    return dict(source=kind, base=base, mapping=mapping, seed=seed, epochs=result.epochs,
                numbers=sum(p.numel() for p in model.trained().values()) if epochs else 0,
                train=round(result.last.get('train_acc') or 0, 4) if epochs else '', test=round(result.last['test_acc'], 4),
                before=round(result.before['test_acc'], 4), seconds=round(sum(r['seconds'] for r in result.log), 1))

WANTED = [(kind, 'none', 'discriminant', seed, 0) for seed in range(3) for kind in ('real', 'random')]
WANTED += [(kind, base, 'dealt', 0, 10) for base in ('none', 'photograph') for kind in ('real', 'random')]
WANTED += [(kind, base, 'dealt', 1, 10) for base in ('none', 'photograph') for kind in ('real', 'random')]

if __name__ == '__main__': make(HERE / 'sequences.csv', COLUMNS, WANTED, trained)
