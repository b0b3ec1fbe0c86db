"Models that are handed on: a folder with a card, a hub, a source with other weights, many prompts on one source"
import json, os, re

import pytest, torch, vrlit as vr
from conftest import ROOT, some_pictures
from hub import loopback_hub
from test_cli import vrlit
from test_train import data

FAST = dict(epochs=2, batch_size=16, lr=.1, device='cpu', progress=False)

@pytest.fixture(scope='module')
def source(): return vr.load_source(size=32)

@pytest.fixture(scope='module')
def task(): return vr.load_task('digits', shots=4)

def trained(source, task, prompt=vr.Watermark, mapping=vr.BLM, control=None, **settings):
    model = vr.Reprogrammed(prompt(source), source, mapping(source.S, task.K))
    if control: vr.compare(model, task, control, **FAST | settings)
    else: vr.fit(model, task, **FAST | settings)
    return model

def rows(card): return {line.split('|')[1].strip(): [v.strip() for v in line.split('|')[2:-1]] for line in card.splitlines() if line.startswith('|')}

def test_a_folder_and_back(source, task, tmp_path):
    model = trained(source, task, control=('random', 'constant'))
    folder = model.save_pretrained(tmp_path / 'shared', licence='apache-2.0')
    assert {'README.md', 'config.json', 'adapter.safetensors', 'pattern.png'} <= {p.name for p in folder.iterdir()} and not (folder / 'examples.png').exists() # which would be public
    again = vr.from_pretrained(folder, device='cpu')
    assert torch.equal(again(task.test.x), model(task.test.x)) and not again.training and again.labels == task.labels
    assert str(vr.predict(again, task.test.x[:3], progress=False)) == str(vr.predict(model, task.test.x[:3], progress=False))
    assert vr.load_run(folder).result.losses == model.about['result'].result.losses
    further = again.save_pretrained(tmp_path / 'further') # whoever got it can hand it on
    assert (further / 'adapter.safetensors').read_bytes() == (folder / 'adapter.safetensors').read_bytes() and 'License' not in (further / 'README.md').read_text()

def test_the_card_tells_what_the_run_does(source, task, tmp_path):
    model = trained(source, task, control=('random', 'constant'))
    card = (model.save_pretrained(tmp_path / 'a', task=task, licence='mit') / 'README.md').read_text()
    done = model.about['result']
    told, of = rows(card), lambda r: [str(r['epoch']), f'{r["val_acc"]:.1%}', f'{r["test_acc"]:.1%}']
    assert told['last'] == of(done.result.last) and told['selected on validation, **what is in here**'] == of(done.result.selected)
    assert told['best on test (selected on the test set)'] == of(done.result.test_best) and told['one pass, before the first step'] == of(done.result.before)
    assert told['control: a source with random weights'] == of(done.controls['random'].selected) and told['control: images that show nothing'] == of(done.controls['constant'].selected)
    for word in 'license: mit', 'library_name: vrlit', 'pattern.png', 'examples.png', 'Apache-2.0', vr.load_run(tmp_path / 'a').config['source_sha256'], "from_pretrained('OWNER/NAME')", '20% cut off as test': assert word in card, word
    plain = trained(source, task, keep='last')
    card = (plain.save_pretrained(tmp_path / 'b') / 'README.md').read_text()
    assert 'No control was trained' in card and rows(card)['last, **what is in here**'] == of(plain.about['result'].last)

def test_no_path_of_this_machine(tmp_path):
    some_pictures(tmp_path / 'secret' / 'pile')
    vrlit('train', 'pile', '--epochs', 1, '--batch-size', 16, '--no-progress', '--out', 'run', cwd=tmp_path / 'secret')
    model = vr.load_run(tmp_path / 'secret' / 'run').model
    folder = model.save_pretrained(tmp_path / 'shared')
    for file in folder.glob('*.[jmc]*'): assert 'secret' not in file.read_text() and str(tmp_path) not in file.read_text(), file
    assert json.loads((folder / 'config.json').read_text())['task'] == 'pile'
    assert torch.equal(vr.from_pretrained(folder).adapter()['prompt.pattern'], model.adapter()['prompt.pattern'])

def test_other_weights_are_refused_or_accepted(source, task, tmp_path):
    folder = trained(source, task).save_pretrained(tmp_path / 'shared')
    other = vr.load_source(size=32)
    with torch.no_grad(): next(other.model.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match='its weights are not those of the training .*other_weights=True'): vr.from_pretrained(folder, source=other)
    with pytest.warns(UserWarning, match='its weights are not those of the training'): model = vr.from_pretrained(folder, source=other, other_weights=True)
    assert model.source is other
    weights = tmp_path / 'other.pt'
    torch.save(other.model.state_dict(), weights)
    with pytest.raises(ValueError, match='its weights are not those of the training'): vr.from_pretrained(folder, weights=weights)

def test_what_cannot_be_shared(source, task, tmp_path):
    untrained = vr.Reprogrammed(vr.Padding(source), source, vr.RLM(source.S, task.K))
    with pytest.raises(ValueError, match='model: it was not trained by fit'): untrained.save_pretrained(tmp_path / 'a')
    with pytest.raises(TypeError, match='model: expected a Reprogrammed'): vr.save_pretrained(source, tmp_path / 'a')
    model = trained(source, task)
    (tmp_path / 'b').mkdir(); (tmp_path / 'b' / 'thesis.txt').touch()
    with pytest.raises(ValueError, match='holds no run'): model.save_pretrained(tmp_path / 'b', overwrite=True)
    assert model.save_pretrained(tmp_path / 'c') and model.save_pretrained(tmp_path / 'c', overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['b', 'c']

def test_a_source_of_ones_own(tmp_path):
    "It cannot be had by its name, so whoever loads the model brings it"
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(12, 12))
    own, task = vr.load_source(net, size=16), vr.make_task('t', data())
    model = trained(own, task)
    folder = model.save_pretrained(tmp_path / 'shared')
    with pytest.raises(ValueError, match='was built in Python; pass it'): vr.from_pretrained(folder)
    assert torch.equal(vr.from_pretrained(folder, source=own, device='cpu')(task.test.x), model(task.test.x))
    assert 'not known' in vr.source_licence(own) and vr.source_licence(vr.load_source('timm/test_resnet', weights=False)).startswith('not known')

# ---- a hub ---------------------------------------------------------------------------------------------------------------

def to_and_fro(cache):
    "In a process of its own, whose client knows the loopback hub from the start"
    source, task = vr.load_source(size=32), vr.load_task('digits', shots=4)
    model = trained(source, task)
    print(model.push_to_hub('me/digits', token='right', licence='mit', private=True))
    first = vr.from_pretrained('me/digits', device='cpu')
    assert torch.equal(first(task.test.x), model(task.test.x))
    assert "from_pretrained('me/digits')" in open(find(cache, 'README.md')[0]).read()
    better = trained(source, task, epochs=3)
    print(better.push_to_hub('me/digits', token='right', branch='longer'))
    assert torch.equal(vr.from_pretrained('me/digits', revision='longer', device='cpu')(task.test.x), better(task.test.x))
    assert torch.equal(vr.from_pretrained('me/digits', device='cpu')(task.test.x), model(task.test.x))
    for name, revision in ('me/nothing', None), ('me/digits', 'v9'):
        with pytest.raises(ConnectionError, match=f'{name} is no folder here, and {name}.* cannot be had from the Hub'): vr.from_pretrained(name, revision=revision)
    with pytest.raises(ConnectionError, match='repo_id: me/other cannot be written .*401'): model.push_to_hub('me/other', token='wrong')

def find(folder, name): return [os.path.join(d, name) for d, _, files in os.walk(folder) if name in files]

def without_a_network(): print(vr.from_pretrained('me/digits', device='cpu').labels)

def theirs():
    with pytest.raises(ImportError, match='me/odd has parts of somebody\'s own, antigravity:Watermark.*; own_parts=True imports them'): vr.from_pretrained('me/odd')

def test_the_hub(tmp_path, python):
    run = lambda name, *args, **more: python('-c', f'import test_sharing; test_sharing.{name}(*{args})', cwd=tmp_path, env=where | dict(PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests")])) | more)
    where = dict(HF_HOME=str(tmp_path / 'hf'), HF_HUB_OFFLINE='0', HF_HUB_DISABLE_TELEMETRY='1', HF_HUB_DISABLE_XET='1', HF_HUB_DISABLE_PROGRESS_BARS='1')
    with loopback_hub() as hub:
        where['HF_ENDPOINT'] = hub.address
        out = run('to_and_fro', str(tmp_path / 'hf'))
        assert re.findall(r'/me/digits/commit/[0-9a-f]{40}', out) and hub.repos['me/digits']['private'] and len(hub.repos['me/digits']['commits']) == 3
        files = dict(hub.repos['me/digits']['commits'][hub.repos['me/digits']['branches']['main']])
        files['config.json'] = files['config.json'].replace(b'"Watermark', b'"antigravity:Watermark')
        hub.repos['me/odd'] = dict(branches=dict(main='1' * 40), commits={'1' * 40: files})
        run('theirs')
    assert str([str(k) for k in range(10)]) in run('without_a_network', HF_HUB_OFFLINE='1') # what was loaded once is there

# ---- many on one source ----------------------------------------------------------------------------------------------

def test_switching(source, task, tmp_path):
    squares = vr.load_task('squares')
    models = dict(digits=trained(source, task), squares=trained(source, squares, vr.SMM, vr.ILM, epochs=1))
    folder = models['digits'].save_pretrained(tmp_path / 'digits')
    both = vr.Adapters(source)
    with pytest.raises(ValueError, match='there is none yet'): both(task.test.x)
    both.add('digits', folder, device='cpu'); both.add('squares', models['squares'])
    assert both.name == 'digits' and torch.equal(both(task.test.x), models['digits'](task.test.x))
    both.use('squares')
    assert torch.equal(both.eval()(squares.test.x), models['squares'](squares.test.x)) and all(m.source is source for m in both.models.values())
    frozen, n = sum(p.numel() for p in source.parameters()), sum(p.numel() for p in both.parameters())
    assert n - frozen == sum(p.numel() for m in models.values() for p in m.trained().values())
    for name in 'digits', '', 'a.b':
        with pytest.raises(ValueError, match='name: expected a new one'): both.add(name, models['digits'])
    with pytest.raises(ValueError, match='on this very source'): both.add('other', trained(vr.load_source(size=32), task, epochs=0))
