"""Spoken digits with few recordings, for three mappings: rows of fsdd.csv, kept as soon as each is finished.

    python nbs/gallery/fsdd.py

makes the rows that are missing, and may be stopped and started again. 61_voice2series.ipynb reads them. Nothing is
selected: the last of the epochs counts.
"""
import functools, sys
from pathlib import Path

import torch

import vrlit as vr

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'experiments'))
from rows import make

COLUMNS = 'source mapping seed epochs numbers train test before seconds'.split()

@functools.cache
def source(kind):
    real = vr.load_attrnn()
    return real if kind == 'real' else vr.random_source(real, vr.load_fsdd().train.x[:64])

def mapped(name, f_pre, seed):
    if name == 'by lot': return vr.ManyToOne(f_pre.S, 10, seed=seed)
    if name == 'by similarity': return vr.ManyToOneSimilarity(f_pre.S, 10, f_pre)
    named = vr.ManyToOne(f_pre.S, 10, per_target=1)
    named.sequence = torch.tensor([[f_pre.labels.index(d)] for d in vr.gallery.series.DIGITS])
    return named

def trained(_, kind, mapping, seed):
    task, f_pre = vr.load_fsdd(val=None), source(kind)
    prompt = vr.SeriesPrompt(f_pre, 16000, masked=False, dropout=.5, seed=seed)
    model = vr.Reprogrammed(prompt, f_pre, mapped(mapping, f_pre, seed))
    result = vr.fit(model, task, **vr.SeriesPrompt.recipes['speech'], keep='last', seed=seed, progress=False)
    numbers = sum(p.numel() for p in model.trained().values())
    return dict(source=kind, mapping=mapping, seed=seed, epochs=result.epochs, numbers=numbers,
                train=round(result.last['train_acc'], 4), test=round(result.last['test_acc'], 4),
                before=round(result.before['test_acc'], 4), seconds=round(sum(r['seconds'] for r in result.log), 1))

WANTED = [(kind, mapping, seed) for seed in range(2) for kind in ('real', 'random')
          for mapping in ('by lot', 'by similarity', 'by name')]

if __name__ == '__main__': make(HERE / 'fsdd.csv', COLUMNS, WANTED, trained)
