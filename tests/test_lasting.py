"Work is not lost: folders that cannot be written, two trainings into one, signals, closed pipes, a loss that is no number"
import os, signal, subprocess, sys, time
from pathlib import Path

import pytest, torch, vrlit as vr
from conftest import ORDINARY, SOMEBODY, root_only, some_pictures
from test_cli import FAST, FILES, command, read, vrlit

@pytest.fixture
def folder(tmp_path):
    some_pictures(tmp_path / 'pile')
    return tmp_path

def started(folder, *args, until='epoch 1,', **more):
    "A training that has finished two epochs"
    job = subprocess.Popen(**command('train', 'pile', '--epochs', 10_000, '--batch-size', 16, '--no-progress', *args, cwd=folder, PYTHONUNBUFFERED='1', **more),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in job.stdout:
        if line.startswith(until): return job
    pytest.fail(job.communicate()[1])

def test_two_trainings_into_one_folder(folder):
    "The first to come owns it; the other stops at once, and harms nothing"
    job = started(folder, '--out', 'run')
    _, err = vrlit('train', 'pile', *FAST, '--out', 'run', cwd=folder, code=2)
    assert 'another training is going on that will write run; take another one' in err
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=100)
    assert sorted(p.name for p in (folder / 'run').iterdir()) == FILES and not list(folder.glob('.run*'))
    vrlit('train', 'pile', *FAST, '--out', 'run', '--overwrite', cwd=folder) # and afterwards it is free

def test_a_killed_training_owns_nothing_but_its_checkpoints(folder):
    job = started(folder, '--out', 'run')
    job.kill(); job.wait()
    _, err = vrlit('train', 'pile', *FAST, '--out', 'run', cwd=folder, code=2)
    assert 'run holds a training that was stopped; --resume goes on with it; --overwrite replaces it' in err
    _, err = vrlit('train', 'pile', *FAST, '--out', 'run', '--resume', cwd=folder, code=2)
    assert 'it is of another training: epochs 10000, here 2' in err
    vrlit('train', 'pile', *FAST, '--out', 'run', '--overwrite', cwd=folder)

@root_only
def test_a_folder_that_cannot_be_written_is_known_before_the_training(folder):
    (folder / 'closed').mkdir(mode=0o755)
    os.chown(folder / 'closed', SOMEBODY, SOMEBODY)
    run = command('train', 'pile', *FAST, '--out', 'closed/run', cwd=folder)
    run['args'][2] = ORDINARY + run['args'][2]
    res = subprocess.run(**run, capture_output=True, timeout=120)
    assert res.returncode == 1 and 'folder: it cannot be written (Permission denied)' in res.stderr and 'Traceback' not in res.stderr
    assert 'ILM' not in res.stdout # nothing was trained

def test_a_disk_that_fills_at_the_end(tmp_path, monkeypatch):
    "A real limit of the system on the length of a file: the model goes to a second place, which the error names"
    script = tmp_path / 'run.py'
    script.write_text('''
import resource, sys, torch, vrlit as vr
source = vr.load_source(torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(12, 12)), size=16)
x, y = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8), torch.arange(40) % 4
task, model = vr.make_task('t', (x, y)), vr.Reprogrammed(vr.Watermark(source), source, vr.ILM(12, 4))
result = vr.fit(model, task, epochs=1, progress=False)
torch.save(source.model.state_dict(), 'source.pt')
resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)) # an adapter is smaller, a picture is not
vr.save_run('out/run', model, task, result)
''')
    res = subprocess.run([sys.executable, script], cwd=tmp_path, env=command(cwd=tmp_path)['env'] | dict(TMPDIR=str(tmp_path)), capture_output=True, text=True, timeout=120)
    assert res.returncode == 1 and 'OSError: folder: out/run cannot be written' in res.stderr and 'model and log are saved in' in res.stderr, res.stderr
    second = Path(res.stderr.rsplit('are saved in ', 1)[1].strip())
    assert not (tmp_path / 'out' / 'run').exists() and second.is_relative_to(tmp_path)
    net = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(12, 12))
    net.load_state_dict(torch.load(tmp_path / 'source.pt'))
    assert vr.load_run(second, source=vr.load_source(net, size=16)).result.log[0]['epoch'] == 0

def test_a_second_signal_does_not_lose_the_result(folder):
    "However many come after the first while it ends and writes"
    job = started(folder, '--out', 'run')
    for _ in range(2):
        job.send_signal(signal.SIGINT)
        time.sleep(.02)
    for _ in range(60):
        if (folder / 'run').exists() or job.poll() is not None: break
        if any(folder.glob('.run.*.tmp')): job.send_signal(signal.SIGTERM) # in the midst of writing
        time.sleep(.02)
    _, err = job.communicate(timeout=100)
    assert 'one moment: what is finished is being written' in err and 'Traceback' not in err
    assert sorted(p.name for p in (folder / 'run').iterdir()) == FILES and read(folder / 'run' / 'result.json')['interrupted']

def test_nohup(folder):
    job = subprocess.Popen(**command('train', 'pile', '--epochs', 8, '--batch-size', 16, '--no-progress', '--out', 'run', cwd=folder, PYTHONUNBUFFERED='1'),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    for line in job.stdout:
        if line.startswith('epoch 1,'): break
    job.send_signal(signal.SIGHUP)
    job.communicate(timeout=100)
    assert job.returncode == 0 and len(read(folder / 'run' / 'result.json')['log']) == 9

def test_a_closed_pipe_does_not_end_a_training(folder):
    "As `2>&1 | head` closes it: the lines of the epochs, and what is said in the end, have nowhere to go"
    job = subprocess.Popen(**command('train', 'pile', '--epochs', 10, '--batch-size', 16, '--out', 'run', cwd=folder, PYTHONUNBUFFERED='1'),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in job.stderr:
        if line.startswith('epoch 1,'): break
    job.stdout.close(); job.stderr.close()
    assert job.wait(timeout=100) == 0
    assert len(read(folder / 'run' / 'result.json')['log']) == 11 and sorted(p.name for p in (folder / 'run').iterdir()) == FILES

def test_a_loss_that_is_no_number_after_good_epochs(folder):
    (folder / 'mine.py').write_text("""
import torch
from vrlit import ILM
class Late(ILM):
    "Lost in its third epoch"
    def wants(self, epoch):
        self.epoch = epoch
        return super().wants(epoch)
    def forward(self, logits): return super().forward(logits) * (float('nan') if self.__dict__.get('epoch', 0) == 2 and self.training else 1)
""")
    out, err = vrlit('train', 'pile', '--mapping', 'mine:Late', '--epochs', 5, '--batch-size', 16, '--out', 'run', cwd=folder, code=1)
    assert 'the loss became nan at epoch 3, step 0' in err and 'written to run' in out
    result = read(folder / 'run' / 'result.json')
    assert len(result['log']) == 3 and 'nan at epoch 3' in result['diverged']

def test_lines_in_a_file_and_silence(folder):
    out, err = vrlit('train', 'pile', '--epochs', 3, '--batch-size', 16, '--out', 'a', cwd=folder)
    lines = [line for line in err.splitlines() if line.startswith('epoch ')]
    assert len(lines) == 4 and lines[0].startswith('epoch 0, val') and lines[3].startswith('epoch 3, lr 0.0') and '\r' not in err and 'written to a' in out
    assert vrlit('train', 'pile', '--epochs', 1, '--batch-size', 16, '--out', 'b', '-q', cwd=folder) == ('', '')

def test_python_m_vrlit(tmp_path, python):
    from conftest import ROOT
    assert python('-m', 'vrlit', '--version', cwd=ROOT).startswith('vrlit 0.')

@pytest.mark.parametrize('args, said', [
    (['train', 'digits', '--source', 'resnet18(foo=1, weights=False)'], 'foo'),
    (['train', 'digits', '--source', 'resnet18(num_classes=-1, weights=False)'], 'error'),
    (['train', 'digits', '--source', 'embedded(size="a")'], 'size'),
    (['train', 'digits', '--source', 'embedded(5)'], '--source'),
    (['train', 'digits', '--mapping', 'BLM(laplace="a")'], 'laplace: expected a number'),
    (['train', 'digits', '--mapping', 'ILM(S=3)'], '--mapping'),
    (['train', 'digits', '--source', 'clip/coca_base'], 'pretrained=False for random weights'),
    (['train', 'digits', '--lr', '-1'], 'lr: expected a number, at least 0'),
    (['train', 'digits', '--momentum', '2', '--optimizer', 'sgd'], 'momentum: expected a number from 0 to 1'),
    (['train', 'digits', '--weights', '.'], 'weights: the embedded source has no tags'),
    (['train', '.'], 'expected a folder of images'),
    (['train', '/dev/null'], 'expected a task, a folder, a zip, an .npz or a .csv'),
    (['train', ''], 'error'),
    (['eval', '.'], 'folder: expected one that `save_run` or `vrlit train` wrote'),
    (['eval', '/nowhere'], 'folder: expected one')], ids=lambda a: '-'.join(a) if isinstance(a, list) else '')
def test_no_traceback_for_what_can_be_typed(args, said, tmp_path):
    status = 1 if 'num_classes' in str(args) else 2
    _, err = vrlit(*args, cwd=tmp_path, code=status)
    assert said in err and not [p for p in tmp_path.iterdir() if p.name[0] != '.']

def test_one_rule_for_names_and_paths(folder):
    "`digits` is the built-in task, here as in Python; a folder of that name is `./digits`"
    (folder / 'pile').rename(folder / 'digits')
    out, err = vrlit('train', 'digits', '--shots', 2, *FAST, '--out', 'a', cwd=folder)
    assert 'digits: 10 labels' in out and 'write ./digits' in err and read(folder / 'a' / 'config.json')['task'] == 'digits'
    out, err = vrlit('train', './digits', *FAST, '--out', 'b', cwd=folder)
    assert 'digits: 2 labels (bright, dark)' in out and 'write ./digits' not in err and os.path.isabs(read(folder / 'b' / 'config.json')['task'])
    (folder / 'IMAGENET1K_V1').mkdir() # a tag is a tag
    _, err = vrlit('train', './digits', '--source', 'resnet18', '--weights', 'IMAGENET1K_V9', *FAST, cwd=folder, code=2)
    assert 'expected a file or one of IMAGENET1K_V1' in err
