"The command line, as a user runs it: in a process of its own"
import csv, inspect, json, os, re, signal, subprocess, sys, time

import numpy as np, pytest, torch, vrlit as vr
from conftest import ROOT, forked, some_pictures
from PIL import Image

def environment(cwd, **more): return {'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'Agg', 'VRLIT_CACHE': str(cwd / '.cache'), 'COLUMNS': '110', **more}

def command(*args, cwd, **more):
    "What runs `vrlit *args` as a program"
    run = [sys.executable, '-c', 'from vrlit.cli import app; app(prog_name="vrlit")', *map(str, args)]
    return dict(args=run, cwd=cwd, env={**os.environ, **environment(cwd, **more)}, text=True, stdin=subprocess.DEVNULL)

def app(args):
    from vrlit.cli import app
    app(args, prog_name='vrlit')

def vrlit(*args, cwd, code=0, **more):
    "(stdout, stderr) of `vrlit *args`, in a process of its own"
    status, out, err = forked(app, [*map(str, args)], cwd=cwd, env=environment(cwd, **more))
    assert status == code, out + err
    assert 'Traceback' not in err, err
    return out, err

@pytest.fixture
def folder(tmp_path):
    some_pictures(tmp_path / 'pile')
    return tmp_path

def test_demo(folder):
    runs = [vrlit('demo', '--task', 'pile', '--epochs', 1, '--seed', seed, '--out', out, cwd=folder)[0]
            for seed, out in ((0, 'deep/a.png'), (0, 'b.svg'), (1, 'c.png'))]
    rows = [[line.split() for line in out.splitlines() if line.startswith('pile ')] for out in runs]
    assert [r[:3] for r in rows[0]] == [['pile', p, m] for p in ('Padding', 'Watermark', 'SMM') for m in ('ILM', 'discriminant')]
    assert all(v.endswith('%') for r in rows[0] for v in r[4:7]) and all(re.fullmatch(r'\d+:\d\d', r[8]) for r in rows[0])
    for said in 'pile, no prompt:', 'linear probe', 'above one pass (', 'above pixels (', 'one standard error of a test accuracy here: ', 'points': assert said in runs[0]
    value = lambda row: float(row[5][:-1])
    for name, method in ('one pass', r'\(MobileNetV1 0.25\) +discriminant '), ('pixels', 'pixels, discriminant '): # the verdict is what the tables say
        known = float(re.search(rf'{method} +[\d.]+% +([\d.]+)%', runs[0])[1])
        above = re.search(rf'^above {name} \(([\d.]+)%\): (.*)$', runs[0], re.M)
        assert float(above[1]) == known and re.findall(r'(\w+) \((\w+)\)', above[2]) == [(r[1], r[2]) for r in rows[0] if value(r) > known]
    results = [[r[:7] for r in some] for some in rows]
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
    for option in ('--task', '--epochs', '--root', '--seed', '--out', '--device'): assert re.search(rf'{option} .*\w{{3}}', out)
    assert 'demo' in vrlit('--help', cwd=tmp_path)[0] and "'demo'" in vrlit('dmeo', cwd=tmp_path, code=2)[1]
    assert vrlit('--version', cwd=tmp_path)[0].startswith('vrlit 0.')

# ---- train, eval, list ----------------------------------------------------------------------------------------------

FILES = 'adapter.safetensors checkpoints config.json curves.png examples.png labels.json log.csv pattern.png result.json times.csv'.split()
FAST = ['--epochs', 2, '--batch-size', 16, '--lr', .1, '--no-progress']
def read(path): return json.loads(path.read_text())

def test_train_writes_what_eval_reads(folder):
    out, _ = vrlit('train', 'pile', '--prompt', 'Padding(inner=48)', '--mapping', 'RLM', '--seed', 3, '--control', 'random', '--keep', 'last', *FAST, cwd=folder)
    run = folder / 'runs' / 'pile-Padding_inner_48-RLM-3'
    assert sorted(p.name for p in run.iterdir()) == sorted([*FILES, 'controls']) and 'written to runs' in out
    config, result, log = read(run / 'config.json'), read(run / 'result.json'), list(csv.DictReader(open(run / 'log.csv')))
    assert list(result['controls']) == ['random'] and 'share' in result and 'control  : test' in out
    assert config['fit']['lr'] == .1 and config['prompt'] == 'Padding(inner=48)' and config['seed'] == config['fit']['seed'] == 3
    assert [float(r['loss']) for r in log[1:]] == [r['loss'] for r in result['log'][1:]] and len(result['losses']) == 2 * 3
    assert result['task']['splits']['train']['images'] == 43 and len(result['task']['splits']['test']['labels_sha256']) == 64
    with Image.open(run / 'pattern.png') as im: assert im.size == (96, 96) and np.asarray(im).std() > 1
    told = json.loads(vrlit('eval', run, '--json', cwd=folder.parent)[0])  # from another folder
    assert told['accuracy'] == pytest.approx(result['last']['test_acc']) and told['images'] == 12
    assert f"accuracy {result['last']['val_acc']:.1%}" in vrlit('eval', run, '--split', 'val', cwd=folder)[0]

    again = folder / 'again'
    vrlit('train', 'pile', '--prompt', 'Padding(inner=48)', '--mapping', 'RLM', '--seed', 3, *FAST, '--out', again, cwd=folder)
    assert read(again / 'result.json')['losses'] == result['losses']           # the same seed, the same run
    _, err = vrlit('train', 'pile', '--out', again, cwd=folder, code=2)
    assert 'is there already; --overwrite replaces it' in err
    vrlit('train', 'pile', '--out', again, '--overwrite', '--mapping', 'Residual(BLM(laplace=2.0))', '--map-fast', *FAST, cwd=folder)
    corrected = json.loads(vrlit('eval', again, '--json', cwd=folder)[0])['accuracy']
    assert corrected == pytest.approx(read(again / 'result.json')['selected']['test_acc'])
    assert 'was not written by `vrlit train`, and is not replaced' in vrlit('train', 'pile', '--out', 'pile', '--overwrite', cwd=folder, code=2)[1]
    assert read(again / 'config.json')['prompt'] == 'Padding' and not [p for p in folder.iterdir() if p.name.startswith('.again')]

    for p in (folder / 'pile' / 'dark').glob('1*.png'): p.unlink()               # other data now
    assert 'warning: test is not the one of the training' in vrlit('eval', run, cwd=folder)[1]

def test_a_source_that_reads_texts(folder):
    about = lambda kind: {'dark': [f'a dark photo of a {kind} at night', f'the {kind} in a cave'], 'bright': [f'a bright photo of a {kind} at noon', f'the {kind} in the snow']}
    for kind in 'des', 'dist': (folder / f'{kind}.json').write_text(json.dumps(about(kind)))
    vrlit('train', 'pile', '--source', 'clip/miniature(size=32, V="files", m=1)', '--texts', 'des.json,dist.json', '--prompt', 'Decoupled(Padding(inner=24), V=2)',
          '--mapping', 'PRM(k=1)', '--recipe', 'paper-clip', *FAST, '--out', 'run', cwd=folder)
    config = read(folder / 'run' / 'config.json')
    assert config['fit']['optimizer'] == 'sgd' and config['fit']['map_fast'] and all(os.path.isabs(f) for f in config['texts'].split(','))
    told = json.loads(vrlit('eval', folder / 'run', '--json', cwd=folder.parent)[0])
    assert told['accuracy'] == pytest.approx(read(folder / 'run' / 'result.json')['last']['test_acc'])
    out, _ = vrlit('train', 'pile', '--source', 'clip/miniature(size=32)', '--texts', 'templates', '--prompt', 'Watermark(width=4)', *FAST, '--out', 'b', cwd=folder)
    assert 'miniature: 32 x 32 pixels -> 162 source labels (This is a photo of a bright., ' in out

def test_a_source_with_arguments_and_a_prompt_of_ones_own(folder):
    (folder / 'mine.py').write_text("""
from vrlit import Watermark
class Tinted(Watermark):
    "A watermark that is tinted"
    def __init__(self, source, tint=0.):
        super().__init__(source, 8); self.pattern.data += tint
""")
    vrlit('train', 'pile', '--source', 'timm/test_resnet(size=32, mean=(.5, .5, .5), weights=False)', '--prompt', 'mine:Tinted(tint=.25)',
          '--lr', 'pattern=0', '--augment', '32+4', '--no-flip', '--recipe', 'clean-resnet', '--epochs', 1, '--batch-size', 16, '--out', 'r', cwd=folder)
    config = read(folder / 'r' / 'config.json')
    assert config['fit']['lr'] == dict(pattern=0) and config['fit']['epochs'] == 1 and (config['fit']['augment'], config['fit']['flip']) == ('32+4', False)
    assert config['fit']['milestones'] == [.5, .72] and config['fit']['batch_size'] == 16   # from the recipe; said
    from safetensors.torch import load_file
    assert (load_file(folder / 'r' / 'adapter.safetensors')['prompt.pattern'] == .25).all()

@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_a_usable_result(folder, sig):
    job = subprocess.Popen(**command('train', 'pile', '--epochs', 10_000, '--batch-size', 16, '--no-progress', '--out', 'run', cwd=folder, PYTHONUNBUFFERED='1'),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in job.stdout:
        if line.startswith('epoch 1,'): break
    job.send_signal(sig)
    out, err = job.communicate(timeout=100)
    assert job.returncode == 128 + sig and 'interrupted' in err and 'Traceback' not in err, err
    assert sorted(p.name for p in (folder / 'run').iterdir()) == FILES
    result = read(folder / 'run' / 'result.json')
    assert result['interrupted'] and 2 <= len(result['log']) < 10_000
    assert json.loads(vrlit('eval', 'run', '--json', cwd=folder)[0])['accuracy'] == pytest.approx(result['selected']['test_acc'])

def test_an_interrupt_before_the_first_epoch_ends_leaves_nothing(folder):
    job = subprocess.Popen(**command('train', 'squares', '--source', 'embedded(size=224)', '--out', 'run', cwd=folder, PYTHONUNBUFFERED='1'),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in job.stdout:
        if line.startswith('ILM . embedded'): break
    time.sleep(.5)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=100)
    assert job.returncode == 130 and 'Traceback' not in err and not [p for p in folder.iterdir() if 'run' in p.name]

@pytest.mark.parametrize('args, code, said', [
    (['digts'], 2, "did you mean 'digits'?"),
    (['digits', '--prompt', 'Pading'], 2, "there is no 'Pading'; did you mean 'Padding'?"),
    (['digits', '--prompt', 'Padding(inner=500)'], 2, 'inner: expected a whole number from 1 to 96, got 500'),
    (['digits', '--prompt', 'Padding(outer=5)'], 2, 'Padding(source'),
    (['digits', '--prompt', 'Padding(inner=__import__("os"))'], 2, '--prompt: expected a name'),
    (['digits', '--prompt', 'os:system'], 2, "there is no 'system'"),
    (['digits', '--prompt', 'nowhere:Mine'], 2, "No module named 'nowhere'"),
    (['digits', '--mapping', 'ILM(per_target=200)'], 2, 'take a source with more labels'),
    (['digits', '--source', 'resnet81'], 2, 'Nearest:'),
    (['digits', '--weights', 'none.safetensors'], 2, 'there is no file'),
    (['digits', '--texts', 'a photo of a {}.'], 2, 'only a source such as clip/ViT-B-32 reads texts'),
    (['digits', '--source', 'clip/miniature', '--texts', 'ensembel'], 2, "--texts: expected a template with a {} for the name, 'ensemble'"),
    (['digits', '--source', 'clip/ViT-B-32', '--weights', 'openai'], 1, 'cannot be had'),
    (['digits', '--lr', 'fast'], 2, "--lr"),
    (['digits', '--lr', 'patern=.1'], 2, "'patern' is no part of"),
    (['digits', '--milestones', '100,144'], 2, 'milestones: expected shares'),
    (['digits', '--augment', '32'], 2, "augment: expected '+PLUS'"),
    (['digits', '--recipe', 'vit'], 2, '--recipe: Padding has paper-resnet, clean-resnet'),
    (['digits', '--shots', '5000'], 2, 'k: expected 5000 training images per class'),
    (['digits', '--source', 'timm/test_resnet.r160_in1k'], 1, 'could not be downloaded')], ids=lambda a: '-'.join(a[1:3]) if isinstance(a, list) else '')
def test_train_errors_say_what_to_do(args, code, said, tmp_path):
    _, err = vrlit('train', *args, cwd=tmp_path, code=code, HF_HOME=str(tmp_path / '.hf'))
    assert said in err and not [p for p in tmp_path.iterdir() if p.name[0] != '.']

def test_a_loss_that_is_no_number(folder):
    (folder / 'mine.py').write_text("""
from vrlit import ILM
class Broken(ILM):
    def forward(self, logits): return super().forward(logits) * float('nan')
""")
    _, err = vrlit('train', 'pile', '--mapping', 'mine:Broken', *FAST, cwd=folder, code=1)
    assert 'the loss became nan at epoch 0, before the first step; a lower lr may help' in err and not (folder / 'runs').exists()

def commands():
    "Every line with `vrlit train` that a page tells people to run"
    import nbformat
    cells = [c.source for p in sorted((ROOT / 'nbs').rglob('*.ipynb')) for c in nbformat.read(p, 4).cells if c.cell_type == 'markdown']
    return [line for source in cells for block in re.findall(r'```sh\n(.*?)```', source, re.S) for line in block.replace('\\\n', '').splitlines() if 'vrlit train' in line]

def test_commands_on_the_pages_are_commands():
    "Options, names of prompts and mappings, recipes: what a page tells people to run would run"
    import shlex
    from vrlit.cli import train_
    lines = commands()
    options = {f'--{k.replace("_", "-")}' for k in inspect.signature(train_).parameters}
    assert len(lines) > 6
    for line in lines:
        args = shlex.split(line[line.index('vrlit train'):].removesuffix('; done'))[2:]
        given = {a: args[i + 1] for i, a in enumerate(args[:-1]) if a.startswith('--')}
        assert {a for a in args if a.startswith('--')} <= options, line
        name, _, inner = vr.read_part(given.get('--prompt', 'Padding'), 'prompt', nested=True)
        recipes = vr.list_prompts()[name].recipes
        assert given.get('--recipe', 'paper-clip') in recipes and all(vr.read_part(i, 'prompt', nested=True)[0] in vr.list_prompts() for i in inner), line
        assert vr.read_part(given.get('--mapping', 'ILM'), 'mapping', nested=True)[0] in vr.list_mappings(), line

def test_every_argument_of_fit_is_an_option():
    from vrlit.cli import _shares, train_
    parsed = dict(milestones=_shares) # from text
    options, fit = inspect.signature(train_).parameters, inspect.signature(vr.fit).parameters
    for name, p in fit.items():
        if p.kind is not p.KEYWORD_ONLY or name == 'callback': continue
        default = options[name].default
        assert parsed.get(name, lambda v: v)(default) == p.default, name
    from vrlit.checkpoints import KEEPING, Keeping
    assert Keeping.__annotations__.keys() == KEEPING.keys() and {name: options[name].default for name in KEEPING} == KEEPING
    from vrlit.speed import COMPUTING, Computing
    assert Computing.__annotations__.keys() == COMPUTING.keys() and {name: options[name].default for name in COMPUTING} == COMPUTING

def test_demo_of_a_large_task(tmp_path):
    "1,000 images for training, 200 for validation, 500 for the test, the same ones for the same seed"
    from vrlit.cli import _some
    g = torch.Generator().manual_seed(0)
    images = lambda n: (torch.randint(0, 256, (n, 3, 4, 4), generator=g, dtype=torch.uint8), torch.arange(n) % 5)
    task = vr.make_task('t', images(2000), images(600), list('abcde'), val=.2)
    some, again, other = (_some(task, seed) for seed in (0, 0, 1))
    assert {k: len(s) for k, s in some.splits.items()} == dict(train=1000, val=200, test=500) and some.labels == task.labels
    assert torch.equal(some.train.x, again.train.x) and not torch.equal(some.train.x, other.train.x) and len(some.train.x.flatten(1).unique(dim=0)) == 1000
    assert _some(digits := vr.load_task('digits'), 0) is digits

def test_ladder(folder):
    "Of several sources, in words and in JSON, drawn; an odd figure is refused before anything is read"
    sources = ['--source', 'embedded(size=32)', '--source', 'clip/miniature']
    out, _ = vrlit('ladder', 'pile', *sources, '--out', 'ladder.svg', '--no-progress', cwd=folder)
    for word in 'linear probe', 'pixels, discriminant', 'MobileNetV1 0.25), random weights', 'best row of a pre-trained source': assert word in out
    assert (folder / 'ladder.svg').stat().st_size > 1000
    told = json.loads(vrlit('ladder', 'pile', *sources, '--texts', 'a {} thing', '--minutes', .05, '--json', '--no-progress', cwd=folder)[0])
    assert 'zero-shot (texts)' in {r['method'] for r in told['rows']} and any(r['epochs'] for r in told['rows'])
    assert told['task'] == 'pile' and {f'{r["test"]:.1%}' for r in told['rows'] if 'MobileNet' in r['source'] and not r['epochs']} <= set(re.findall(r'[\d.]+%', out))
    assert '--out' in vrlit('ladder', 'nowhere', '--out', 'ladder.doc', cwd=folder, code=2)[1]

def test_lists(tmp_path):
    lists = {kind: vrlit('list', kind, cwd=tmp_path)[0] for kind in ('sources', 'tasks', 'prompts', 'mappings')}
    assert 'embedded' in lists['sources'] and 'clip/ViT-B-32' in lists['sources'].splitlines() and 'torchvision/resnet18' in lists['sources'].splitlines()
    assert re.search(r'^gtsrb +43 German traffic signs', lists['tasks'], re.M)
    assert re.search(r"^Padding\(inner=None, squash='sigmoid'\)\n    .*learned frame", lists['prompts'], re.M)
    assert re.search(r'^Discriminant\(.*\n    .*\n    .*both less their mean over target labels\.$', lists['mappings'], re.M) # the whole paragraph
    mappings = {name for name in dir(vr) if inspect.isclass(c := getattr(vr, name)) and hasattr(c, 'wants') and issubclass(c, torch.nn.Module)}
    assert {line.partition('(')[0] for line in lists['mappings'].splitlines() if line[0] != ' '} == mappings >= {'ILM', 'BLMPlus', 'SeMap', 'FullyMap'}
    assert vrlit('list', 'sources', '*resnext101_32x8d*', cwd=tmp_path)[0].count('\n') >= 3
    assert 'nothing among the tasks fits' in vrlit('list', 'tasks', 'x*', cwd=tmp_path, code=2)[1]

def test_a_pipe_that_closes_is_no_error(tmp_path):
    run = command('list', 'sources', cwd=tmp_path)
    job = subprocess.Popen(**run, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert job.stdout.readline() == 'embedded\n'
    job.stdout.close()
    assert 'rror' not in job.stderr.read() and job.wait(timeout=60) in (0, 1)

def test_the_shell_completes(tmp_path):
    out, _ = vrlit(cwd=tmp_path, _VRLIT_COMPLETE='complete_bash', COMP_WORDS='vrlit tr', COMP_CWORD='1')
    assert out.split() == ['train']
