"Never lost: a training that is killed, stopped or starved goes on to the bit, and a file that is not right is refused"
import json, os, random, resource, shutil, signal, subprocess, time, warnings
from pathlib import Path

import pytest, torch, vrlit as vr
from conftest import ROOT, forked, forks, some_pictures
from test_cli import command, vrlit
from test_train import data, model

# ---- trainings in processes of their own, and what is left of them -------------------------------------------------------

SMALL = dict(epochs=4, batch_size=16, lr=.05, augment='+4', layout='loaded', device='cpu', progress=False, save_every=.02)
KINDS = dict( # prompt, mapping, settings of `fit`
    smm_ilm=(lambda f: vr.SMM(f, patch=4), vr.ILM, dict(lr=dict(pattern=.05, mask_generator=.01))),
    watermark_blmp=(lambda f: vr.Watermark(f, width=4), vr.BLMPlus, dict(map_fast=True, map_memory=.5, optimizer='sgd', momentum=.9)),
    discriminant=(vr.Padding, vr.Discriminant, dict(select='balanced', clip_grad=.1, schedule='cosine', warmup=3)),
    linear=(vr.Watermark, vr.FullyMap, dict(optimizer=dict(prompt='adamw', mapping='adam'), map_augmented=True, precision='bf16')))

def parts(kind):
    prompt, mapping, settings = KINDS[kind]
    torch.manual_seed(0)
    source, task = vr.load_source(size=32), vr.load_task('digits', shots=16)
    return vr.Reprogrammed(prompt(source), source, mapping(source.S, task.K)), task, SMALL | settings

def train(kind, out, **more):
    "As a script would: the same words whether it starts or goes on"
    m, task, settings = parts(kind)
    Path(out).with_suffix('.alive').touch()
    result = vr.fit(m, task, out=out, resume=True, **settings | more)
    vr.save_run(out, m, task, result)

def files(run):
    "Every file's bytes, but for how long it took"
    return {str(f.relative_to(run)): f.read_bytes() for f in sorted(Path(run).rglob('*')) if f.is_file() and f.name != 'times.csv'}

def same(run, other):
    a, b = files(run), files(other)
    assert a.keys() == b.keys() and len(a) >= 8
    return [name for name in a if a[name] != b[name]] == []

def killed(kind, out, seconds):
    "Whether the training still ran, so many seconds after it began"
    alive = Path(out).with_suffix('.alive')
    alive.unlink(missing_ok=True)
    child = forks.Process(target=quiet, args=(kind, str(out)))
    child.start()
    while not alive.exists() and child.is_alive(): time.sleep(.005)
    child.join(seconds)
    was = child.is_alive()
    child.kill(); child.join()
    assert was or child.exitcode == 0
    return was

def quiet(kind, out):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    train(kind, out)

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The run that nobody disturbed, by kind; made once"
    there = tmp_path_factory.mktemp('whole')
    def get(kind):
        if not (there / kind / 'result.json').exists(): train(kind, there / kind)
        return there / kind
    return get

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('kills', [5, pytest.param(30, marks=pytest.mark.slow)])
def test_kills_at_random_moments(kind, kills, whole, tmp_path):
    rng, lives, out = random.Random(kills), 0, tmp_path / 'run'
    longest = .35 if kills == 5 else .2
    for _ in range(kills):
        lives += killed(kind, out, rng.uniform(0, longest))
    train(kind, out)
    assert lives >= kills - 2 and same(out, whole(kind))

# ---- in the midst of writing -----------------------------------------------------------------------------------------

def dies_while_writing(kind, out, call, nth):
    "Killed at the nth call of one of the system's functions that write"
    real, n = getattr(os, call), [0]
    def last(*args, **kw):
        n[0] += 1
        if n[0] == nth: os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kw)
    setattr(os, call, last)
    train(kind, out)

def dies_between_two_names(kind, out):
    "The old folder has another name already, and the new one has not yet its own"
    real = os.replace
    def last(a, b):
        real(a, b)
        if str(b).endswith('.old'): os.kill(os.getpid(), signal.SIGKILL)
    os.replace = last
    train(kind, out)

def test_a_kill_between_two_names(whole, tmp_path):
    out = tmp_path / 'run'
    assert forked(dies_between_two_names, 'discriminant', str(out))[0] == -signal.SIGKILL and not out.exists()
    train('discriminant', out)
    assert same(out, whole('discriminant')) and [p.name for p in tmp_path.iterdir() if p.name[0] == '.'] == []

@pytest.mark.parametrize('call, nth', [('fsync', 1), ('fsync', 7), ('fsync', 10), ('replace', 1), ('replace', 6), ('replace', 9)])
def test_a_kill_during_the_write_itself(call, nth, whole, tmp_path):
    out = tmp_path / 'run'
    assert forked(dies_while_writing, 'watermark_blmp', str(out), call, nth)[0] == -signal.SIGKILL
    train('watermark_blmp', out)
    assert same(out, whole('watermark_blmp')) and not list(tmp_path.glob('**/.*.tmp'))

def half(kind, out):
    "A training that a callback ends after two epochs"
    m, task, settings = parts(kind)
    class Enough(Exception): pass
    def stop(row, model):
        if row['epoch'] == 2: raise Enough
    with pytest.raises(Enough): vr.fit(m, task, out=out, **settings, callback=stop)
    return m, task, settings

@pytest.mark.parametrize('damage', ['truncated', 'empty', 'foreign', 'newer', 'flipped'])
def test_a_file_that_is_not_right_is_refused_and_the_one_before_is_used(damage, whole, tmp_path):
    out = tmp_path / 'run'
    half('discriminant', out)
    before, last = sorted((out / 'checkpoints').glob('*.safetensors'))
    whole_file = last.read_bytes()
    from safetensors.torch import save
    last.write_bytes(dict(truncated=whole_file[:-100], empty=b'', foreign=save(dict(a=torch.ones(3))), flipped=whole_file[:-1] + bytes([whole_file[-1] ^ 1]),
                          newer=whole_file.replace(b'format\\": 1', b'format\\": 2'))[damage])
    reason = dict(truncated='cut short', empty='cut short', foreign='no checkpoint of vrlit', newer='its format is 2', flipped='damaged')[damage]
    with pytest.warns(UserWarning, match=f'{last.name} is refused: .*{reason}.*; {before.name}, the one before it, is used'): train('discriminant', out)
    assert same(out, whole('discriminant'))

def test_no_file_that_is_right(tmp_path):
    m, task, settings = half('discriminant', tmp_path / 'run')
    for file in (tmp_path / 'run' / 'checkpoints').iterdir(): file.write_bytes(b'no')
    with pytest.raises(ValueError, match='resume: no checkpoint in .* can be used; .*cut short'): vr.fit(m, task, out=tmp_path / 'run', resume=True, **settings)

# ---- a full disk --------------------------------------------------------------------------------------------------------

def starved(kind, out, limit):
    "The longest file that the system allows is shorter than a checkpoint, from the third epoch on"
    m, task, settings = parts(kind)
    def limited(row, model):
        if row['epoch'] == 2: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    vr.fit(m, task, out=out, **settings, callback=limited)

def test_a_write_that_fails(whole, tmp_path):
    out = tmp_path / 'run'
    status, _, err = forked(starved, 'smm_ilm', str(out), 100_000)
    left = sorted(f.name for f in (out / 'checkpoints').iterdir())
    told = err.strip().splitlines()[-1]
    assert status == 1 and 'OSError' in told and f'were missing); {left[-1]} is whole, and resume goes on from it' in told and len(left) == 2, err
    train('smm_ilm', out)
    assert same(out, whole('smm_ilm'))

def test_a_disk_that_is_full(whole, tmp_path):
    "A real one, of four megabytes, where such a disk can be mounted"
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk], capture_output=True).returncode: pytest.skip('only root can mount a disk')
    try:
        m, task, settings = parts('smm_ilm')
        def fill(row, model):
            if row['epoch'] == 2: (disk / 'other').write_bytes(bytes(shutil.disk_usage(disk).free - 50_000))
        with pytest.raises(OSError, match=r'No space left on device: of [\d,]+ bytes [\d,]+ were missing\); \d+.safetensors is whole') as e:
            vr.fit(m, task, out=disk / 'run', **settings, callback=fill)
        assert e.value.result.epochs >= 2 and not m.training
        (disk / 'other').unlink()
        result = vr.fit(m, task, out=disk / 'run', resume=True, **settings)
        vr.save_run(tmp_path / 'run', m, task, result)
        assert files(tmp_path / 'run')['adapter.safetensors'] == files(whole('smm_ilm'))['adapter.safetensors']
    finally: subprocess.run(['umount', disk], check=True)

# ---- signals -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('seconds', [.05, .15])
def test_a_signal_writes_a_checkpoint_and_exits(number, seconds, whole, tmp_path):
    out, alive = tmp_path / 'run', tmp_path / 'run.alive'
    child = forks.Process(target=quiet_and_rare, args=('smm_ilm', str(out)))
    child.start()
    while not (out / 'checkpoints').exists(): time.sleep(.005)
    time.sleep(seconds)
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == (128 + number if number == signal.SIGTERM else 1) or (out / 'result.json').exists()
    train('smm_ilm', out)
    assert alive.exists() and same(out, whole('smm_ilm'))

def quiet_and_rare(kind, out):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train(kind, out, save_every=1000.)

def test_a_step_is_finished_first(tmp_path):
    "A signal in its midst: between the two halves of a step nothing is written"
    m, task = model(vr.ILM), vr.make_task('t', data())
    seen = []
    def augment(x, g):
        seen.append(len(x))
        if len(seen) == 3: signal.raise_signal(signal.SIGINT)
        return x
    with pytest.raises(KeyboardInterrupt, match='in the first epoch') as stopped:
        vr.fit(m, task, epochs=2, batch_size=16, device='cpu', progress=False, augment=augment, out=tmp_path / 'run')
    assert len(stopped.traceback) < 8 and stopped.value.__suppress_context__, 'no page of the frames of torch'
    state = vr.Checkpoints(tmp_path / 'run' / 'checkpoints').newest()
    assert state['at']['step'] == 3 and len(state['at']['losses']) == 3 and len(state['log']) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

# ---- what goes on, and what does not -----------------------------------------------------------------------------------

def test_a_finished_run_does_nothing(whole, tmp_path, capfd):
    shutil.copytree(whole('smm_ilm'), out := tmp_path / 'run')
    times = {f: f.stat().st_mtime_ns for f in out.rglob('*')}
    m, task, settings = parts('smm_ilm')
    result = vr.fit(m, task, out=out, resume=True, **settings | dict(progress=True))
    assert 'finished, after 4 epochs; nothing is done' in capfd.readouterr().err
    assert times == {f: f.stat().st_mtime_ns for f in out.rglob('*')} and vr.is_saved(out, result)
    assert vr.evaluate(m, task.test).accuracy == result.selected['test_acc'] and result.log == vr.load_run(out).result.log

def test_without_a_folder_it_is_the_same(whole):
    m, task, settings = parts('smm_ilm')
    result = vr.fit(m, task, **settings)
    assert result.losses == json.loads(files(whole('smm_ilm'))['result.json'])['losses']

def test_another_training_is_refused(tmp_path):
    out = tmp_path / 'run'
    m, task, settings = half('discriminant', out)
    again = lambda m=m, task=task, **kw: vr.fit(m, task, **settings | dict(out=out, resume=True) | kw)
    with pytest.raises(ValueError, match='it is of another training: lr 0.05, here 0.1'): again(lr=.1)
    with pytest.raises(ValueError, match='images of train [0-9a-f]{12}..., here'): again(task=vr.load_task('digits', shots=17))
    with pytest.raises(ValueError, match="mapping 'Discriminant', here 'Discriminant\\(shrinkage=0.5\\)'"):
        again(m=vr.Reprogrammed(vr.Padding(m.source), m.source, vr.Discriminant(1000, 10, shrinkage=.5)))
    other = vr.load_source(size=32)
    with torch.no_grad(): next(other.model.parameters()).add_(1)
    with pytest.raises(ValueError, match='weights of the source [0-9a-f]{12}..., here'): again(m=vr.Reprogrammed(vr.Padding(other), other, vr.Discriminant(1000, 10)))
    with pytest.raises(ValueError, match='holds a training that was stopped; resume=True goes on with it; overwrite=True replaces it'): again(resume=False)
    assert again(resume=False, overwrite=True).epochs == 4 and len(list((out / 'checkpoints').iterdir())) == 1

def test_another_place_only_warns(tmp_path, monkeypatch):
    out = tmp_path / 'run'
    m, task, settings = half('discriminant', out)
    import vrlit.train
    monkeypatch.setattr(vrlit.train, 'versions', lambda: dict(vr.versions(), torch='9.9'))
    with pytest.warns(UserWarning, match=r'not to the bit as where it was: torch .*, is 9.9'): vr.fit(m, task, out=out, resume=True, **settings)

def test_where_nothing_is_it_begins(tmp_path):
    m, task = model(vr.ILM), vr.make_task('t', data())
    quick = dict(epochs=1, batch_size=16, device='cpu', progress=False)
    assert vr.fit(m, task, out=tmp_path / 'a' / 'run', resume=True, **quick).epochs == 1
    with pytest.raises(ValueError, match='resume: expected out as well'): vr.fit(m, task, resume=True, **quick)
    (tmp_path / 'mine').mkdir(); (tmp_path / 'mine' / 'thesis.txt').write_text('years of work')
    for how in dict(overwrite=True), dict(resume=True):
        with pytest.raises(ValueError, match='holds no run'): vr.fit(m, task, out=tmp_path / 'mine', **how, **quick)
    assert vr.fit(m, task, out=tmp_path / 'once', epochs=0, progress=False).epochs == 0 and (tmp_path / 'once' / 'log.csv').read_text().count('\n') == 2

# ---- a loss that is no number --------------------------------------------------------------------------------------------

class Cliff(vr.ILM):
    "Falls off where the learning rate is too high"
    def forward(self, logits):
        z = super().forward(logits)
        return z * float('nan') if self.training and self.steep() else z

def on_a_cliff(**kw):
    m, task = model(Cliff), vr.make_task('t', data())
    seen = []
    m.mapping.steep = lambda: seen.append(0) or len(seen) == 8 # once, in the last step of the second epoch of four
    return m, lambda: vr.fit(m, task, **dict(epochs=3, batch_size=16, lr=.1, device='cpu', progress=False) | kw)

def test_where_it_is_no_number():
    m, run = on_a_cliff()
    with pytest.raises(vr.Diverged, match=r'nan at epoch 2, step 3; a lower lr may help \(it was 0.01, on images [\d ]+\), on_nan=') as e: run()
    n = len(vr.make_task('t', data()).train)
    assert (e.value.epoch, e.value.step, e.value.lr) == (2, 3, pytest.approx(.01)) and len(set(e.value.images)) == n - 48 and max(e.value.images) < n
    assert e.value.result.epochs == 1 and all(p.isfinite().all() for p in m.parameters())

@pytest.mark.parametrize('kept', [False, True])
def test_back_at_half_the_rate(kept, tmp_path):
    m, run = on_a_cliff(on_nan='back', **dict(out=tmp_path / 'run') if kept else {})
    with pytest.warns(UserWarning, match='it goes on from there with 0.5 of the learning rate'): result = run()
    assert [row['lr'] for row in result.log[1:]] == pytest.approx([.1, .005, .0005]) and '1 times back' in repr(result)
    (back,) = result.backs
    assert (back['epoch'], back['step'], back['rate']) == (2, 3, .5) and len(back['images']) > 0
    if kept: assert vr.Checkpoints(tmp_path / 'run' / 'checkpoints').newest()['backs'] == [back]

class LateCliff(Cliff):
    "All steps are sound, and what they left is not"
    def forward(self, logits):
        z = vr.ILM.forward(self, logits)
        return z if self.training or not self.steep() else z * float('nan')

def test_an_interrupt_after_going_back(tmp_path):
    "What is kept is what was gone back to, not the steps that led to the cliff"
    m, seen, asked, wants = model(LateCliff), [], [], vr.ILM.wants
    m.mapping.steep = lambda: seen.append(0) or len(seen) == 5 # test and validation before, after one epoch, after two
    def stop(epoch):
        asked.append(epoch)
        if asked.count(1) == 2: signal.raise_signal(signal.SIGINT) # before the second epoch, for the second time
        return wants(m.mapping, epoch)
    m.mapping.wants = stop
    with pytest.warns(UserWarning, match='interrupted after 1 of 3 epochs') as said:
        result = vr.fit(m, vr.make_task('t', data()), epochs=3, batch_size=16, device='cpu', progress=False, on_nan='back', out=tmp_path / 'run')
    assert any('nan at epoch 2, after its last step' in str(w.message) for w in said)
    state = vr.Checkpoints(tmp_path / 'run' / 'checkpoints').newest()
    assert state['epoch'] == 1 and state['at'] is None and result.epochs == len(result.backs) == 1

def test_a_cliff_at_every_rate():
    m, run = on_a_cliff(on_nan='back')
    m.mapping.steep = lambda: True
    with warnings.catch_warnings(record=True) as said, pytest.raises(vr.Diverged): run()
    assert len(said) == 9 # down to a thousandth

# ---- the command line --------------------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path):
    some_pictures(tmp_path / 'pile')
    return tmp_path

TRAIN = ['train', 'pile', '--source', 'embedded(size=32)', '--epochs', 6, '--batch-size', 16, '--layout', 'loaded', '--mapping', 'BLMPlus', '--control', 'random', '--no-progress']

def test_vrlit_train_resumes(folder):
    vrlit(*TRAIN, '--out', 'whole', cwd=folder)
    for until in 'epoch 1,', 'epoch 4,':
        job = subprocess.Popen(**command(*TRAIN, '--out', 'run', '--resume', cwd=folder, PYTHONUNBUFFERED='1'), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for line in job.stdout:
            if line.startswith(until): break
        job.kill(); job.wait()
    out, _ = vrlit(*TRAIN, '--out', 'run', '--resume', cwd=folder)
    assert 'written to run' in out and same(folder / 'run', folder / 'whole')
    out, _ = vrlit(*TRAIN, '--out', 'run', '--resume', cwd=folder)
    assert 'finished already, nothing is written: run' in out
    _, err = vrlit(*TRAIN, '--out', 'run', '--resume', '--lr', .3, cwd=folder, code=2)
    assert 'it is of another training: lr 0.01, here 0.3' in err

def test_slurm_warns(folder):
    "SIGTERM: a checkpoint and a usable run, and the same command with --resume ends as if nothing had been"
    long = [a if a != 6 else 40 for a in TRAIN if a not in ('--control', 'random')]
    job = subprocess.Popen(**command(*long, '--out', 'run', cwd=folder, PYTHONUNBUFFERED='1'), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in job.stdout:
        if line.startswith('epoch 2,'): break
    job.terminate()
    out, err = job.communicate(timeout=60)
    assert job.returncode == 143 and 'the same command with --resume goes on' in out, err
    assert json.loads((folder / 'run' / 'result.json').read_text())['interrupted']
    vrlit(*long, '--out', 'run', '--resume', cwd=folder)
    vrlit(*long, '--out', 'whole', cwd=folder)
    assert same(folder / 'run', folder / 'whole')

# ---- formats ------------------------------------------------------------------------------------------------------------

def test_a_run_of_the_first_format(tmp_path):
    "As version 0.1.0 wrote it, before there were checkpoints"
    run = vr.load_run(ROOT / 'tests' / 'formats' / 'run-1', device='cpu')
    task = run.load_task()
    assert vr.evaluate(run.model, task.test).accuracy == pytest.approx(run.result.selected['test_acc']) and run.result.log[1]['seconds'] > 0
    assert 'random' in run.controls and run.controls['random'].log[0]['seconds'] > 0
    with pytest.raises(ValueError, match='holds a run without checkpoints: it is finished, or of an earlier version; load_run reads it'):
        vr.fit(run.model, task, out=ROOT / 'tests' / 'formats' / 'run-1', resume=True, epochs=1, progress=False)
    shutil.copytree(run.folder, later := tmp_path / 'run')
    config = json.loads((later / 'config.json').read_text())
    (later / 'config.json').write_text(json.dumps(config | dict(format=99)))
    with pytest.raises(ValueError, match='its format is 99, this version reads up to 2; pip install -U vrlit'): vr.load_run(later)
