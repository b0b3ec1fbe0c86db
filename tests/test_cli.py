"The command line, as a user runs it: in a process of its own"
import os, re, subprocess, sys

import numpy as np, pytest
from conftest import ROOT
from PIL import Image

def vrlit(*args, cwd, code=0):
    "(stdout, stderr) of `vrlit *args`"
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'Agg', 'VRLIT_CACHE': str(cwd / '.cache'), 'COLUMNS': '110'}
    run = [sys.executable, '-c', 'from vrlit.cli import app; app(prog_name="vrlit")', *map(str, args)]
    res = subprocess.run(run, cwd=cwd, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300)
    assert res.returncode == code, res.stdout + res.stderr
    assert 'Traceback' not in res.stderr, res.stderr
    return res.stdout, res.stderr

@pytest.fixture
def folder(tmp_path):
    "Two classes of a few small pictures, dark and bright: a task that trains in a second"
    for i in range(60):
        path = tmp_path / 'pile' / ('dark', 'bright')[i % 2] / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(128 * (i % 2), 128 + 128 * (i % 2), (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path

def test_demo(folder):
    runs = [vrlit('demo', '--task', 'pile', '--epochs', 1, '--seed', seed, '--out', out, cwd=folder)[0]
            for seed, out in ((0, 'deep/a.png'), (0, 'b.svg'), (1, 'c.png'))]
    rows = [[line.split() for line in out.splitlines() if line.startswith('pile ')] for out in runs]
    assert [r[:3] for r in rows[0]] == [['pile', p, m] for p in ('Padding', 'Watermark') for m in ('RLM', 'FLM', 'ILM')]
    assert all(r[4].endswith('%') and r[5].endswith('%') and re.fullmatch(r'\d+:\d\d', r[7]) for r in rows[0])
    results = [[r[:6] for r in some] for some in rows]
    assert results[0] == results[1] # the same seed, the same result
    with Image.open(folder / 'deep' / 'a.png') as im: assert min(im.size) > 300
    assert '<svg' in (folder / 'b.svg').read_text()
    assert sorted(p.name for p in folder.iterdir() if p.name[0] != '.') == ['b.svg', 'c.png', 'deep', 'pile'] # no temporary file is left

@pytest.mark.parametrize('args, said', [
    (['--task', 'digts'], "did you mean 'digits'?"),
    (['--tasks', 'digits'], '--task'),
    (['--epochs', '0'], '--epochs'),
    (['--seed', 'one'], '--seed'),
    (['--out', 'figure.doc'], '--out: expected a file ending in one of'),
    (['--out', '.'], '--out: expected a file'),
    (['--device', 'cuda:99'], 'error')], ids=lambda a: a[0] if isinstance(a, list) else '')
def test_errors_say_what_to_do(args, said, tmp_path):
    _, err = vrlit('demo', *args, cwd=tmp_path, code=2)
    assert said in err and not [p for p in tmp_path.iterdir() if p.name[0] != '.']

def test_help_tells_every_option(tmp_path):
    out, _ = vrlit('demo', '--help', cwd=tmp_path)
    for option in ('--task', '--epochs', '--seed', '--out', '--device'): assert re.search(rf'{option} .*\w{{3}}', out)
    assert 'demo' in vrlit('--help', cwd=tmp_path)[0] and "'demo'" in vrlit('dmeo', cwd=tmp_path, code=2)[1]
    assert vrlit('--version', cwd=tmp_path)[0].startswith('vrlit 0.')
