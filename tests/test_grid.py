"Many runs on one database: several processes, kills, interrupts, and files that are none"
import json, os, signal, sqlite3, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest, torch, vrlit as vr
from conftest import SHARED, forked, forks
from vrlit.claims import Store, stored_runs
from vrlit.many import Kept, run_words

WORDS = dict(source='embedded(size=32)', at_most=[100, 20, 20], batch_size=50, lr=.03, layout='loaded', device='cpu', epochs=2)
AXES = dict(task=['digits', 'squares'], prompt=['Padding', 'Watermark', 'SMM'], mapping=['ILM', 'Discriminant'], seed=[0, 1])

def toml(file, words=WORDS, **axes):
    "The grid as a file: JSON's texts, numbers and lists are TOML's"
    lines = [f'{k} = {json.dumps(v)}' for k, v in words.items()] + ['[grid]'] + [f'{k} = {json.dumps(v)}' for k, v in (axes or AXES).items()]
    file.write_text('\n'.join(lines))
    return file

@pytest.fixture(scope='session')
def serial(tmp_path_factory):
    "Rows and logs of the grid of 24 runs, one after the other"
    done = vr.grid(toml(tmp_path_factory.mktemp('serial') / 'grid.toml'), workers=0, progress=False)
    with Store(done.file) as store: return timeless(done.rows), [timeless(run['log']) for run in stored_runs(store, log=True)]

def timeless(rows): return [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]

def work(file, db): vr.grid(file, db, workers=0, lease=2, progress=False)

def started(*args):
    process = forks.Process(target=work, args=args)
    process.start()
    return process

def until(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'nothing came of it'
        time.sleep(.02)

def seen(db, state):
    if not db.exists(): return []
    with Store(db) as store: return stored_runs(store, state)

def test_two_processes_and_two_kills(tmp_path, serial):
    "24 runs, each once, as a serial run has them"
    file, db = toml(tmp_path / 'grid.toml'), tmp_path / 'both.db'
    survivor, victim = started(file, db), started(file, db)
    for _ in range(2):
        before = len(seen(db, 'done'))
        mine = lambda: [run for run in seen(db, 'running') if run['worker'].split(':')[1] == str(victim.pid)]
        until(lambda: len(seen(db, 'done')) > before + 1 and mine())
        victim.kill()
        victim.join()
        victim = started(file, db)
    for process in (survivor, victim):
        process.join(120)
        assert process.exitcode == 0
    with Store(db) as store: runs = stored_runs(store, None, log=True)
    assert [run['state'] for run in runs] == ['done'] * 24
    assert len({run['worker'] for run in runs}) >= 2
    assert serial == (timeless(vr.done_rows(runs)), [timeless(run['log']) for run in runs])
    assert not (tmp_path / 'both.runs').exists() or not [*(tmp_path / 'both.runs').glob('*')]

def test_what_died_goes_on_from_its_checkpoint(tmp_path):
    file, db = toml(tmp_path / 'grid.toml', WORDS | dict(epochs=400), task='digits'), tmp_path / 'one.db'
    process = started(file, db)
    log = lambda: [*tmp_path.glob('one.runs/*/log.csv')]
    until(lambda: log() and len(log()[0].read_text().splitlines()) > 5)
    process.kill()
    process.join()
    run, = seen(db, 'running')
    folder, rows = tmp_path / 'one.runs' / run['key'][:12], []
    done = vr.Checkpoints(folder / 'checkpoints').glance()['epoch']
    class Enough(Exception): pass
    def count(row, model):
        rows.append(row['epoch'])
        if len(rows) == 3: raise Enough
    with pytest.raises(Enough): run_words(run['words'], folder, Kept(), count)
    assert done >= 3 and rows == [done + 1, done + 2, done + 3] # a row is written before its checkpoint, of which the kill came between

def test_random_weights_go_on_as_well(tmp_path):
    "Of a source by its name, and of a control: drawn the second time as the first"
    class Enough(Exception): pass
    def enough(row, model):
        rows.append(row['epoch'])
        if row['epoch'] == 2 == len(rows): raise Enough
    words = WORDS | dict(source='timm/test_vit(size=32, weights=False)', epochs=3)
    for run in vr.read_grid(dict(words, grid=dict(task='digits', control=['none', 'random']))).runs:
        folder, rows = tmp_path / run.names['control'], []
        with pytest.raises(Enough): run_words(run.words, folder, Kept(), enough)
        torch.manual_seed(1) # as another process may stand
        run_words(run.words, folder, Kept(), enough)
        assert rows == [1, 2, 3]

def test_a_worker_that_is_killed_is_replaced(tmp_path):
    "Its run does not wait for the end of the lease, which is an hour here"
    file, db = toml(tmp_path / 'grid.toml', WORDS | dict(epochs=40), task='digits', mapping=['ILM', 'BLM']), tmp_path / 'grid.db'
    script = f'import vrlit as vr; print(vr.grid({str(file)!r}, lease=3600, workers=1, progress=False))'
    command = subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: seen(db, 'running'))
    os.kill(int(seen(db, 'running')[0]['worker'].split(':')[1]), signal.SIGKILL)
    out, err = command.communicate(timeout=300)
    assert command.returncode == 0, err
    assert 'grid.db: 2 done' in out
    assert len({run['worker'] for run in seen(db, 'done')}) >= 1 and not (tmp_path / 'grid.runs').exists()

def test_an_interrupt_keeps_what_is_done_and_nobody_stays(tmp_path):
    file, db = toml(tmp_path / 'grid.toml', WORDS | dict(epochs=4000), task='digits', mapping=['ILM', 'BLM']), tmp_path / 'grid.db'
    command = subprocess.Popen([sys.executable, '-m', 'vrlit', 'grid', str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: len([*tmp_path.glob('grid.runs/*/checkpoints/*')]) > 1)
    workers = [int(run['worker'].split(':')[1]) for run in seen(db, 'running')]
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 130 and 'interrupted' in err
    assert [run['state'] for run in seen(db, None)] == ['waiting'] * 2
    until(lambda: not any(Path(f'/proc/{pid}').exists() for pid in workers), 10)

@pytest.mark.parametrize('shared', [False, True])
def test_many_make_the_file_at_once(tmp_path, shared):
    "Whoever comes first makes it; nobody finds it half made"
    with ThreadPoolExecutor(6) as pool:
        for i in range(25):
            together = threading.Barrier(6)
            def opened():
                together.wait()
                with Store(tmp_path / f'{i}.db', make=True, shared=shared) as store: return store.in_memory()
            assert {future.result() for future in [pool.submit(opened) for _ in range(6)]} == {not shared}

def test_orphans_stop(tmp_path):
    "Workers whose command was killed do not go on by themselves"
    file, db = toml(tmp_path / 'grid.toml', WORDS | dict(epochs=4000), task='digits'), tmp_path / 'grid.db'
    script = f'import vrlit as vr; vr.grid({str(file)!r}, lease=2, workers=1, progress=False)'
    command = subprocess.Popen([sys.executable, '-c', script])
    until(lambda: seen(db, 'running'))
    worker = Path('/proc') / seen(db, 'running')[0]['worker'].split(':')[1]
    if not worker.exists(): pytest.skip('needs /proc')
    command.kill()
    command.wait()
    until(lambda: not worker.exists() or 'Z' in (worker / 'stat').read_text().split()[2], 30)
    assert [run['state'] for run in seen(db, None)] == ['waiting']

def command_line(*args):
    sys.argv = ['vrlit', *args]
    from vrlit.cli import app
    app()

def test_minutes_and_the_rest_later(tmp_path):
    file = toml(tmp_path / 'grid.toml', WORDS | dict(epochs=4000), task='digits')
    start = time.monotonic()
    code, out, err = forked(command_line, 'grid', str(file), '--workers', '0', '--minutes', '0.1')
    assert code == 75 and '1 waiting' in out, err
    assert time.monotonic() - start < 40
    code, out, err = forked(command_line, 'grid', str(file), '--dry-run')
    assert code == 0 and out.startswith('waiting'), err

def test_command_line(tmp_path):
    file = toml(tmp_path / 'grid.toml', task='digits', prompt=['Padding', 'Padding(inner=99)'])
    code, out, err = forked(command_line, 'grid', str(file), '--workers', '0', '--set', 'epochs=1', '--db', str(tmp_path / 'x.db'))
    assert code == 1 and '1 done, 1 failed' in out and 'inner: expected' in out
    assert '1 of 2: digits, Padding: test' in err
    run, = seen(tmp_path / 'x.db', 'done')
    assert run['result']['epochs'] == 1
    for args, told in {('--set', 'epoch=1'): "did you mean 'epochs'", ('--set', 'epochs'): 'expected WORD=VALUE', ('--set', 'epochs=3', '--db', str(tmp_path / 'x.db')): 'epochs was 1, is 3',
                       ('--db', str(file)): 'is no database'}.items():
        code, out, err = forked(command_line, 'grid', str(file), '--workers', '0', *args)
        assert code == 2 and err.startswith('error: ') and told in err, (args, err)
    assert len(seen(tmp_path / 'x.db', None)) == 2

def test_versions_and_machines(tmp_path):
    file, db = toml(tmp_path / 'grid.toml', task='digits'), tmp_path / 'grid.db'
    done = vr.grid(file, workers=0, progress=False)
    with Store(db) as store: vr.store_facts(store, vrlit='0.0.9')
    with pytest.raises(ValueError, match='holds rows of vrlit 0.0.9, this is'): vr.grid(file, workers=0, progress=False)
    assert vr.grid(file, workers=0, progress=False, other_version=True).rows == done.rows
    with sqlite3.connect(db) as raw: raw.execute("update runs set state = 'running', worker = 'elsewhere:1:0', lease = ?", (time.time() + 60,))
    with pytest.raises(ValueError, match='elsewhere writes in'): vr.grid(file, workers=0, progress=False)
    with Store(tmp_path / 'several.db', make=True, shared=True) as store: assert not store.in_memory()

def test_a_damaged_database_is_refused_and_stays(tmp_path):
    file, db = toml(tmp_path / 'grid.toml', task='digits'), tmp_path / 'grid.db'
    vr.grid(file, workers=0, progress=False)
    whole = db.read_bytes()
    db.write_bytes(whole[:100] + b'\xff' * (len(whole) - 100))
    broken = db.read_bytes()
    with pytest.raises((ValueError, OSError), match='db: '): vr.grid(file, workers=0, progress=False)
    assert db.read_bytes() == broken

def test_controls_and_kept_runs(tmp_path):
    found = vr.grid(dict(WORDS, grid=dict(task='digits', control=['none', 'random', 'constant'])), tmp_path / 'grid.db', workers=0, keep=True, progress=False)
    assert [row['control'] for row in found.rows] == ['none', 'random', 'constant']
    folder, = (tmp_path / 'grid.runs').iterdir()
    run = vr.load_run(folder)
    assert run.result.selected['test_acc'] == found.rows[0]['test_acc'] and run.load_task().train.y.shape == (100,)
    task, source = vr.load_task('digits', at_most=(100, 20, 20)), vr.load_source(size=32)
    model = vr.Reprogrammed(vr.Padding(source), source, vr.ILM(source.S, task.K))
    alone = vr.compare(model, task, 'random', **{k: WORDS[k] for k in ('batch_size', 'lr', 'layout', 'device', 'epochs')}, progress=False)
    assert alone.controls['random'].selected['test_acc'] == found.rows[1]['test_acc']

def test_baselines(tmp_path):
    grid = dict(WORDS, grid=dict(task='digits', baseline=['none', 'linear_probe', 'full_finetuning'], seed=[0, 1]))
    found = vr.grid(grid, tmp_path / 'grid.db', workers=0, keep=True, progress=False)
    assert len(found.rows) == 6 and len(list((tmp_path / 'grid.runs').iterdir())) == 2 # runs of the model itself
    task, source = vr.load_task('digits', at_most=(100, 20, 20), seed=1), vr.load_source(size=32)
    alone = vr.fit(vr.linear_probe(source, task.K, 1), task, seed=1, progress=False, **{k: WORDS[k] for k in ('batch_size', 'lr', 'layout', 'device', 'epochs')})
    row, = (row for row in found.rows if (row['baseline'], row['seed']) == ('linear_probe', '1'))
    assert row['test_acc'] == alone.selected['test_acc'] and row['trained'] == 2570
    with pytest.raises(ValueError, match='baseline: expected none, linear_probe or full_finetuning'): vr.read_grid(dict(grid=dict(task='digits', baseline='probe')))

def test_rows_that_are_known_are_not_done_again(tmp_path):
    file, rows = toml(tmp_path / 'grid.toml', task=['digits', 'squares'], prompt=['Padding', 'Watermark']), tmp_path / 'rows.csv'
    code, out, err = forked(command_line, 'grid', str(file), '--workers', '0')
    assert code == 0, err
    code, out, err = forked(command_line, 'table', str(file.with_suffix('.db')), '--flat')
    rows.write_text(out)
    more = toml(tmp_path / 'more.toml', task=['digits', 'squares'], prompt=['Padding', 'Watermark', 'SMM'])
    args = 'grid', str(more), '--known', str(rows), '--workers', '0'
    code, out, err = forked(command_line, *args, '--dry-run')
    assert code == 0 and '4 done, 2 waiting' in out and not more.with_suffix('.db').exists(), err
    code, out, err = forked(command_line, *args)
    assert code == 0 and '6 done' in out and err.count('SMM') == len(err.splitlines()) == 2, err # a line for each that was done
    again, first = (vr.read_rows(f) for f in (more.with_suffix('.db'), file.with_suffix('.db')))
    told = {row['key']: row for row in again}
    for row in first: assert told[row['key']] == {k: float(f'{v:.6g}') if isinstance(v, float) else v for k, v in row.items()}
    for args, says in {('--set', 'epochs=3'): 'none is of a run of this grid', ('--known', str(tmp_path / 'no.csv')): 'no.csv'}.items():
        code, out, err = forked(command_line, 'grid', str(file), '--known', str(rows), '--db', str(tmp_path / 'other.db'), *args)
        assert code == 2 and err.startswith('error: ') and says in err, (args, err)
    assert not (tmp_path / 'other.db').exists()

EXPERIMENTS = Path(__file__).resolve().parents[1] / 'nbs' / 'experiments'

@pytest.mark.parametrize('file', sorted(EXPERIMENTS.glob('*.toml')), ids=lambda file: file.stem)
def test_tracked_rows_are_of_the_grid_beside_them(file, monkeypatch):
    "Each run of it once, by the hash of its configuration; what was trained with other settings has another"
    text = file.read_text()
    if '.zip' in text or '$' in text:
        if not SHARED: pytest.skip('needs data and models that only developers have')
        for name, folder in dict(DATA='datasets', WEIGHTS='weights').items(): monkeypatch.setenv(name, f'{SHARED}/{folder}')
    plan = vr.read_grid(file, **dict(root=f'{SHARED}/datasets') if '.zip' in text else {})
    rows = vr.read_rows(file.with_suffix('.csv'))
    assert sorted(row['key'] for row in rows) == sorted(run.key[:12] for run in plan.runs)
    names = {run.key[:12]: run.names for run in plan.runs}
    for row in rows: assert {axis: row[axis] for axis in plan.axes} == names[row['key']]

def ray_workers():
    "Processes of this machine that train for Ray"
    found = []
    for proc in Path('/proc').glob('[0-9]*'):
        try: told = (proc / 'cmdline').read_bytes()
        except OSError: continue
        if told.startswith(b'ray::ray_run'): found.append(int(proc.name))
    return found

def on_ray(file, db): vr.grid(file, db, workers=2, engine='ray', lease=8, progress=False)

@pytest.mark.skipif(not Path('/proc').exists(), reason='finds the workers of Ray in /proc')
def test_ray_and_two_kills(tmp_path, serial):
    pytest.importorskip('ray')
    file, db = toml(tmp_path / 'grid.toml'), tmp_path / 'ray.db'
    driver = forks.Process(target=on_ray, args=(file, db))
    driver.start()
    for n in 2, 8:
        until(lambda: len(seen(db, 'done')) > n and ray_workers())
        for pid in ray_workers()[:1]: os.kill(pid, signal.SIGKILL)
    driver.join(400)
    assert driver.exitcode == 0
    runs = seen(db, None)
    assert [run['state'] for run in runs] == ['done'] * 24, [run['error'] for run in runs]
    assert serial[0] == timeless(vr.done_rows(runs))

def test_slurm(tmp_path):
    "The script is one that bash runs, and two of its jobs do all runs"
    file = toml(tmp_path / 'a grid.toml', task='digits', prompt=['Padding', 'Watermark'], seed=[0, 1])
    code, out, err = forked(command_line, 'grid', str(file), '--slurm', str(tmp_path / 'job.sh'), '--jobs', '2', '--minutes', '3', '--set', 'epochs=1')
    assert code == 0 and '4 waiting' in out and 'starts 2 workers' in out, err
    script = (tmp_path / 'job.sh').read_text()
    assert '#SBATCH --array=0-1' in script and '#SBATCH --time=8\n' in script
    with Store(tmp_path / 'a grid.db') as store: assert not store.in_memory()
    env = os.environ | dict(PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}', SLURM_CPUS_PER_TASK='1')
    jobs = [subprocess.Popen(['bash', str(tmp_path / 'job.sh')], env=env | dict(SLURM_ARRAY_TASK_ID=str(i)), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for i in range(2)]
    for job in jobs:
        _, err = job.communicate(timeout=120)
        assert job.returncode == 0, err.decode()
    runs = seen(tmp_path / 'a grid.db', None)
    assert [run['state'] for run in runs] == ['done'] * 4 and {run['result']['epochs'] for run in runs} == {1}
