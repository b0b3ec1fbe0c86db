"""Tables as pictures, and what needs no picture: rows of tables.csv, kept as soon as each is finished.

    python nbs/gallery/tables.py

makes the rows that are missing, and may be stopped and started again. 64_tables.ipynb reads them.
"""
import sys, time
from pathlib import Path

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import torch

import vrlit as vr
from vrlit.gallery.tables import TablePrompt, load_table
from vrlit.losses import measure

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'experiments'))
from rows import make

COLUMNS = 'table way cut metric numbers score seconds'.split()
METRIC = dict(tumours='average_precision', wine='accuracy', diabetes='rmse')

def table(name, cut): return load_table(name, .12 if name == 'tumours' else None, seed=cut)

def by_raw_numbers(task, metric, way):
    if metric == 'rmse': ask = RidgeCV() if way == 'linear' else HistGradientBoostingRegressor(random_state=0)
    elif way == 'linear': ask = LogisticRegression(class_weight='balanced', max_iter=1000)
    else: ask = HistGradientBoostingClassifier(class_weight='balanced', random_state=0)
    ask = make_pipeline(StandardScaler(), ask)
    (x, y), (x_val, y_val), (x_test, y_test) = (d[:] for d in (task.train, task.val, task.test))
    ask.fit(torch.cat([x, x_val]).numpy(), torch.cat([y, y_val]).squeeze(-1).numpy()) # nothing is selected
    z = ask.predict(x_test.numpy())[:, None] if metric == 'rmse' else ask.predict_proba(x_test.numpy())
    z = torch.from_numpy(z)
    return 0, measure([metric], z if metric == 'rmse' else z.clamp_min(1e-12).log(), y_test)[metric]

def reordered(task, seed):
    order = torch.randperm(task.shape[0], generator=torch.Generator().manual_seed(seed))
    train, val, test = ((s.x[:, order], s.y) for s in (task.train, task.val, task.test))
    return vr.make_task(task.name, train, test, task.labels, val, kind='tensors', real=task.real)

def with_source(task, metric, kind, part, cut):
    source = vr.load_source('embedded', size=64)
    if part == 'trained, another order': task = reordered(task, cut)
    prompt = TablePrompt(source, task.shape[0], task.train.x)
    if kind == 'random': source = vr.random_source(source, prompt(task.train.x[:64]).detach(), seed=cut)
    if part == 'one pass': mapping, epochs = vr.Discriminant(source.S, task.K), 0
    else: mapping, epochs = vr.FullyMap(source.S, task.K, seed=cut), 20
    if part == 'output only': prompt.W.requires_grad_(False)
    model = vr.Reprogrammed(prompt, source, mapping)
    recipe = TablePrompt.recipes['example'] | dict(epochs=epochs, metrics=(metric,), select=metric, seed=cut)
    if metric == 'rmse': recipe |= dict(class_weight=None)
    result = vr.fit(model, task, **recipe, progress=False)
    return sum(p.numel() for p in model.trained().values()), result.selected[f'test_{metric}' if metric != 'accuracy' else 'test_acc']

def scored(_, name, way, cut):
    task, metric, start = table(name, cut), METRIC[name], time.perf_counter()
    if way in WAYS: numbers, score = with_source(task, metric, *WAYS[way], cut)
    else: numbers, score = by_raw_numbers(task, metric, 'linear' if way == 'raw numbers, linear' else 'boosting')
    return dict(table=name, way=way, cut=cut, metric=metric, numbers=numbers, score=round(score, 4),
                seconds=round(time.perf_counter() - start, 1))

WAYS = {f'{kind} source, {part}': (kind, part) for part in ('trained', 'output only', 'one pass') for kind in ('real', 'random')}
WAYS |= {'real source, another order': ('real', 'trained, another order')}
ALL = ['raw numbers, linear', 'raw numbers, boosting', *WAYS]
WANTED = [(name, way, cut) for cut in range(5) for name in METRIC for way in ALL if not (name == 'diabetes' and way.endswith('one pass'))]

if __name__ == '__main__': make(HERE / 'tables.csv', COLUMNS, WANTED, scored)
