"""Voice2Series on two sets of the UCR archive: rows of v2s.csv, kept as soon as each is finished.

    python nbs/gallery/v2s.py

makes the rows that are missing, and may be stopped and started again. 61_voice2series.ipynb reads them. Settings as in
the paper, but for one: nothing is selected, the last of the epochs counts.
"""
import functools, sys
from pathlib import Path


import vrlit as vr

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'experiments'))
from rows import make

COLUMNS = 'set source copies masked seed epochs numbers train test before seconds'.split()
EPOCHS = dict(ecg200=100, earthquakes=40)

@functools.cache
def source(kind, name):
    real, x = vr.load_attrnn(), vr.load_ucr(name).train.x[:64]
    return real if kind == 'real' else vr.random_source(real, vr.unprompted(real)(x))

def trained(_, name, kind, copies, masked, seed):
    task, f_pre = vr.load_ucr(name, val=None), source(kind, name)
    prompt = vr.SeriesPrompt(f_pre, task.shape[0], copies, masked=masked, seed=seed)
    model = vr.Reprogrammed(prompt, f_pre, vr.ManyToOne(f_pre.S, task.K, seed=seed))
    recipe = vr.SeriesPrompt.recipes['paper'] | dict(epochs=EPOCHS[name])
    result = vr.fit(model, task, **recipe, keep='last', seed=seed, progress=False)
    numbers = sum(p.numel() for p in model.trained().values())
    return dict(set=name, source=kind, copies=copies, masked=masked, seed=seed, epochs=result.epochs, numbers=numbers,
                train=round(result.last['train_acc'], 4), test=round(result.last['test_acc'], 4),
                before=round(result.before['test_acc'], 4), seconds=round(sum(r['seconds'] for r in result.log), 1))

WANTED = [('ecg200', kind, 10, True, seed) for seed in range(3) for kind in ('real', 'random')]
WANTED += [('earthquakes', kind, 10, True, seed) for seed in range(2) for kind in ('real', 'random')]
WANTED += [('ecg200', 'real', copies, True, seed) for seed in range(2) for copies in (1, 3, 30)]
WANTED += [('ecg200', 'real', 10, False, seed) for seed in range(2)]

if __name__ == '__main__': make(HERE / 'v2s.csv', COLUMNS, WANTED, trained)
