"What ruff, mypy and an editor say"
import ast, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

USER = '''
import torch
import vrlit as vr

source: vr.Source = vr.load_source('resnet18', weights='IMAGENET1K_V1', size=128)
task = vr.load_task('cifar10', '~/data', shots=16).to('cpu')
model = vr.Reprogrammed(vr.Padding(source, inner=32), source, vr.ILM(source.S, task.K))
result = vr.fit(model, task, lr=dict(pattern=.1), milestones=(.5,), augment=task.augment(32, plus=4), callback=lambda row, m: print(row['loss'], m))
accuracy: float = vr.evaluate(model, task.test).accuracy
names: list[str] = task.labels + vr.mapped_names(model.mapping, source.labels)[0]
mine = vr.make_task('mine', (torch.zeros(9, 3, 8, 8), [0, 1, 2] * 3), val=None)
reveal_type(result.selected)
vr.load_source(size='large')
vr.Padding()
'''

def test_types(python, tmp_path):
    "mypy accepts the package, and a user's program but for its two mistakes"
    (tmp_path / 'user.py').write_text(USER)
    code = 'import sys; from mypy import api; out, err, _ = api.run(sys.argv[1:]); print(out + err)'
    out = python('-c', code, '--config-file', ROOT / 'setup.cfg', '--cache-dir', tmp_path / 'cache', ROOT / 'vrlit', tmp_path / 'user.py', cwd=ROOT, timeout=600)
    told = [line for line in out.splitlines() if ': error:' in line or ': note:' in line]
    assert len(told) == 3 and all('user.py' in line for line in told), out
    assert 'dict[str, Any]' in told[0] or 'dict[Any, Any]' in told[0], out
    assert 'Argument "size" to "load_source"' in told[1] and 'Missing positional argument "source"' in told[2], out

def test_style(python):
    assert 'All checks passed' in python('-m', 'ruff', 'check', '--no-cache', cwd=ROOT)

def test_the_stub_is_what_there_is(python): python('.ci/stub.py', '--check', cwd=ROOT)

# ---- rooms: who may know whom ------------------------------------------------------------------------------------------

def imports():
    "{module: {modules of vrlit that it imports, also within functions}}, and the private names among what is imported"
    arrows, private = {}, []
    for file in sorted((ROOT / 'vrlit').rglob('*.py')):
        if file.name in ('__init__.py', '__main__.py', '_modidx.py'): continue
        package = list(file.relative_to(ROOT).with_suffix('').parts)
        name = '.'.join(package)
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if not isinstance(node, ast.ImportFrom): continue
            home = '.'.join(package[:-node.level] + (node.module or '').split('.') if node.level else [node.module]).rstrip('.')
            if not home.startswith('vrlit.') or home == 'vrlit._modidx': continue
            arrows.setdefault(name, set()).add(home)
            private += [f'{name} imports {home}.{a.name}' for a in node.names if a.name.startswith('_')]
    return arrows, private

FLOORS = '''checks ranks help_texts
pixels recipes reprogram losses
speed sources augment
tasks checkpoints
loaders prompts
mappings
clip
train
controls baselines official plots watching
ladders
theory gallery
runs
prediction reports bench sharing exporting grids claims search notebooks
rows
many
tables
reproduction
cli'''.splitlines()

def test_imports_run_downhill():
    arrows, private = imports()
    assert not private, private
    room = lambda module: module.split('.')[1]
    floor = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
    assert {room(m) for m in arrows} <= floor.keys()
    wrong = [f'{a} imports {b}' for a, homes in arrows.items() for b in homes if room(a) != room(b) and floor[room(b)] >= floor[room(a)]]
    assert not wrong, wrong
    for a, homes in arrows.items():
        known = {room(b) for b in homes}
        if room(a) == 'prompts': assert known <= {'checks', 'pixels', 'sources', 'recipes', 'prompts'}, f'{a} knows {known}'
        if room(a) == 'mappings': assert known <= {'checks', 'reprogram', 'sources', 'mappings'}, f'{a} knows {known}'
        if room(a) == 'train': assert not known & {'prompts', 'mappings', 'controls'}, f'{a} knows {known}'

def test_a_helper_has_a_name_of_its_own():
    homes = {}
    for file in sorted((ROOT / 'vrlit').rglob('*.py')):
        for node in ast.parse(file.read_text(encoding='utf-8')).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and file.name != '__init__.py': homes.setdefault(node.name, []).append(file.stem)
    twice = {name: files for name, files in homes.items() if len(files) > 1}
    assert not twice, twice

def test_lines_are_narrow():
    "At most 120 characters, comments, messages and docstrings among them"
    wide = [f'{file.relative_to(ROOT)}:{i}' for file in sorted((ROOT / 'vrlit').rglob('*.py')) if file.name != '_modidx.py'
            for i, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1)
            if len(line) > 120 and not line.startswith('__all__')] # which nbdev writes by itself
    assert not wide, f'{len(wide)} lines: {wide}'
