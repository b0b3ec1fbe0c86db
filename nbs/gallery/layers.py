"""Trainable in and out: rows of layers.csv, kept as soon as each is finished.

    python nbs/gallery/layers.py FLOWERS TEXTURES

makes the rows that are missing, and may be stopped and started again. 66_trainable_in_and_out.ipynb reads them. FLOWERS
and TEXTURES are image folders or zips: here five kinds of flowers, and ten of the 47 textures of DTD. Nothing is
selected: the last of the epochs counts.
"""
import functools, sys
from pathlib import Path

import vrlit as vr
from vrlit.gallery.layers import InputLayer
from vrlit.pixels import Resized

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'experiments'))
from rows import make

COLUMNS = 'task source way seed numbers test seconds'.split()
TRAINED, ONCE = ('input alone', 'output alone', 'both'), ('discriminant', 'linear probe')

@functools.cache
def task(name, shots):
    found = vr.load_task(dict(digits='digits', flowers=sys.argv[1], textures=sys.argv[2])[name])
    return found.few_shot(shots)

@functools.cache
def source(kind, seed):
    real = vr.load_source('embedded', size=64)
    return real if kind != 'random' else vr.random_source(real, Resized(real)(task('digits', 30).train.x[:64]), seed=seed)

@functools.cache
def once(name, kind, seed):
    rows = vr.ladder(task(name, 30), source(kind, seed), seed=seed, progress=False).rows
    return {row['method']: row for row in reversed(rows) if row['source'] in ('-', source(kind, seed).name)}

def told(_, name, kind, way, seed):
    if way not in TRAINED:
        row = once(name, kind, seed)[way]
        return dict(task=name, source=kind, way=way, seed=seed, numbers=row['numbers'], test=round(row['test'], 4),
                    seconds=round(row['seconds'], 1))
    t, f_pre = task(name, 30), source(kind, seed)
    f_in = InputLayer(f_pre) if way in ('input alone', 'both') else Resized(f_pre)
    f_out = vr.FLM(f_pre.S, t.K) if way == 'input alone' else vr.FullyMap(f_pre.S, t.K, seed=seed)
    model = vr.Reprogrammed(f_in, f_pre, f_out)
    recipe = InputLayer.recipes['example']
    lr = {k: v for k, v in recipe['lr'].items() if any(n.startswith(k) for n in model.trained())}
    result = vr.fit(model, t, **recipe | dict(lr=lr), keep='last', seed=seed, progress=False)
    return dict(task=name, source=kind, way=way, seed=seed, numbers=sum(p.numel() for p in model.trained().values()),
                test=round(result.last['test_acc'], 4), seconds=round(sum(r['seconds'] for r in result.log), 1))

WANTED = [(name, kind, way, seed) for seed in range(3) for name in ('digits', 'flowers', 'textures')
          for kind in ('real', 'random') for way in (*ONCE, *TRAINED)]
WANTED += [(name, 'none', 'pixels, discriminant', 0) for name in ('digits', 'flowers', 'textures')]

if __name__ == '__main__': make(HERE / 'layers.csv', COLUMNS, WANTED, told)
