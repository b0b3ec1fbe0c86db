"""Programs in the MNIST automaton: rows of automata.csv, kept as soon as each is finished.

    python nbs/gallery/automata.py FOLDER

makes the rows that are missing, and may be stopped and started again. 62_cellular.ipynb reads them. The folder has the
files of MNIST's 10,000 test digits, of which 8,000 train; without it the rows of the 600 packaged ones are made. Nothing
is selected: the last of the epochs counts.
"""
import functools, sys
from pathlib import Path

import torch

import vrlit as vr
from vrlit.gallery.automata import StateMatrix, Strangers, load_mnist_automaton, load_mnist_test

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'experiments'))
from rows import make

COLUMNS = 'goal program source digits seed epochs numbers train test before seconds'.split()
PROGRAMS = {'symmetric matrix': StateMatrix, 'free matrix': lambda source: StateMatrix(source, symmetric=False),
            'strangers': Strangers, 'every cell a stranger': lambda source: Strangers(source, share=1.)}
GOALS = {'the next digit': lambda y: (y + 1) % 10, 'always an eight': lambda y: torch.full_like(y, 8)}

@functools.cache
def source(kind):
    real = load_mnist_automaton()
    return real if kind == 'real' else vr.random_source(real, load_mnist_test().train.x[:64])

def trained(_, goal, program, kind, train, seed, epochs):
    digits, f_pre = load_mnist_test(sys.argv[1] if train == 8000 else None, val=None), source(kind)
    (x, y), (x_test, y_test) = (d[:] for d in (digits.train, digits.test))
    task = vr.make_task(goal, (x, GOALS[goal](y)), (x_test, GOALS[goal](y_test)), digits.labels, None, kind='tensors')
    model = vr.Reprogrammed(PROGRAMS[program](f_pre), f_pre, vr.OneToOne(10, 10))
    recipe = StateMatrix.recipes['example'] | dict(epochs=epochs)
    if 'stranger' in program: recipe |= dict(lr=.001)
    result = vr.fit(model, task, **recipe, keep='last', seed=seed, progress=False)
    return dict(goal=goal, program=program, source=kind, digits=train, seed=seed, epochs=epochs,
                numbers=sum(p.numel() for p in model.trained().values()),
                train=round(result.last['train_acc'], 4), test=round(result.last['test_acc'], 4),
                before=round(result.before['test_acc'], 4), seconds=round(sum(r['seconds'] for r in result.log), 1))

WANTED = [('the next digit', 'symmetric matrix', 'real', 600, 0, 20)]
if len(sys.argv) > 1:
    WANTED += [('the next digit', 'symmetric matrix', 'real', 8000, 0, 4), ('always an eight', 'strangers', 'real', 8000, 0, 1),
               ('the next digit', 'strangers', 'real', 8000, 0, 2), ('the next digit', 'symmetric matrix', 'random', 8000, 0, 4),
               ('the next digit', 'free matrix', 'real', 8000, 0, 4), ('always an eight', 'strangers', 'random', 8000, 0, 1),
               *(('the next digit', 'symmetric matrix', 'real', 8000, seed, 4) for seed in (1,))]

if __name__ == '__main__': make(HERE / 'automata.csv', COLUMNS, WANTED, trained)
