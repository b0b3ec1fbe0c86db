"A trained model on disk: written, read elsewhere, and what is refused; methods of one's own are found everywhere"
import json, os, shutil, stat

import nbformat, pytest, torch, vrlit as vr
from conftest import forked
from torch import nn

FAST = dict(epochs=1, batch_size=16, lr=.1, device='cpu', progress=False)

@pytest.fixture(scope='module')
def digits(): return vr.load_task('digits', shots=4)

def app(args):
    from vrlit.cli import app
    app(args)

def reads(folder, losses):
    run = vr.load_run(folder)
    assert not run.model.training and run.settings['lr'] == .01 and run.source.S == 1000 and run.result.losses == losses
    task = run.load_task()
    print(run.labels, vr.evaluate(run.model, task.test).accuracy, task.record() == run.result.task)

def trained(source, task, prompt, mapping, **settings):
    model = vr.Reprogrammed(prompt, source, mapping)
    return model, vr.fit(model, task, **FAST | settings)

def test_a_run_is_the_same_model_in_another_process(digits, tmp_path):
    source = vr.load_source(size=32)
    model, result = trained(source, digits, vr.SMM(source, channels=1, patch=4), vr.Residual(vr.BLM(source.S, 10, laplace=2.)), lr=.01)
    folder = vr.save_run(tmp_path / 'run', model, digits, result)
    code, out, err = forked(reads, str(folder), result.losses, cwd=tmp_path)
    assert code == 0 and out.strip() == f'{digits.labels} {vr.evaluate(model, digits.test).accuracy} True', out + err
    config, labels = (json.loads((folder / f'{name}.json').read_text()) for name in ('config', 'labels'))
    assert config['prompt'] == 'SMM(patch=4, channels=1)' and config['mapping'] == 'Residual(BLM(laplace=2.0))'
    assert config['source'] == 'embedded(size=32)' and config['versions'].keys() >= {'python', 'torch', 'timm'}
    assert labels['source'] == source.labels and labels['target'] == digits.labels
    code, out, err = forked(app, ['eval', str(folder), '--json'], cwd=tmp_path)
    assert code == 0, err
    assert json.loads(out)['accuracy'] == vr.evaluate(model, digits.test).accuracy # the command line reads what Python wrote

@pytest.mark.parametrize('name', [name for name in vr.list_prompts() if name not in ('Resized', 'Decoupled')])
def test_every_prompt_in_words(name, digits):
    "What `part_text` tells of a prompt with other arguments than the defaults makes the same prompt"
    source = vr.load_source(size=32)
    other = dict(Padding=dict(inner=20), Watermark=dict(width=5), Patch=dict(side=9, random=True), SMM=dict(layers=6, train_body=False),
                 SamplePattern=dict(patch=4), LowRank=dict(rank=3), Scale=dict(inner=12), AffineColor={}, EVP=dict(width=3))[name]
    prompt = vr.list_prompts()[name](source, **other)
    again = vr.build_prompt(vr.part_text(prompt), source)
    again.load_state_dict(prompt.state_dict())
    x = digits.test.x[:3]
    assert torch.equal(again.eval()(x), prompt.eval()(x)) and [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in prompt.parameters()]

@pytest.mark.skipif(os.name == 'nt', reason='needs the permissions of Unix')
def test_a_run_is_readable_as_the_umask_says(tmp_path):
    f, task = vr.load_source('embedded', size=32), vr.load_task('digits', shots=2)
    model = vr.Reprogrammed(vr.Watermark(f), f, vr.ILM(f.S, task.K))
    result = vr.fit(model, task, epochs=1, progress=False)
    old = os.umask(0o027)
    try: run = vr.save_run(tmp_path / 'run', model, task, result)
    finally: os.umask(old)
    assert stat.S_IMODE(run.stat().st_mode) == 0o750 and {stat.S_IMODE(p.stat().st_mode) for p in run.iterdir()} == {0o640}

def test_texts_are_kept(tmp_path):
    "A CLIP's texts, and their groups, whatever files or draws they came from"
    task = vr.make_task('two', (torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8), [0, 1] * 6), labels=['cat', 'dog'], val=None)
    texts = [f'a {kind} {name} somewhere' for name in task.labels for kind in ('small', 'large', 'wet')]
    source = vr.DecoupledSource(vr.load_clip(size=32), texts, [0, 1, 0, 1, 0, 1])
    model, result = trained(source, task, vr.Decoupled(vr.Padding(source, inner=24), V=2), vr.PRM(6, 2, k=2))
    run = vr.load_run(vr.save_run(tmp_path / 'run', model, task, result), device='cpu')
    assert run.source.texts == source.texts and torch.equal(run.source.groups, source.groups)
    assert torch.allclose(run.model(task.test.x), model(task.test.x), atol=1e-5)
    with pytest.raises(ValueError, match='made in Python'): run.load_task()

def test_other_weights_are_refused(digits, tmp_path):
    source = vr.load_source('timm/test_resnet', weights=False, size=32)
    folder = vr.save_run(tmp_path / 'run', *((m := trained(source, digits, vr.Padding(source), vr.RLM(1000, 10)))[0], digits, m[1]))
    with pytest.raises(ValueError, match='its weights are not those of the training'): vr.load_run(folder)   # drawn anew
    assert torch.equal(vr.load_run(folder, source=source, device='cpu').model(digits.test.x), m[0](digits.test.x))
    other = vr.load_source('timm/test_resnet', weights=False, size=32)
    with pytest.warns(UserWarning, match='its weights are not those of the training'): vr.load_run(folder, source=other)

def test_random_weights_of_a_name_are_the_same_each_time(digits, tmp_path):
    "So that a training on them goes on, and its run is loaded; nobody else's random numbers change"
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    for name in 'timm/test_resnet(size=32, weights=False)', 'clip/miniature(pretrained=False)':
        drawn, again = (vr.build_source(name, labels=digits.labels, device='cpu') for _ in range(2))
        assert vr.weights_sha256(drawn) == vr.weights_sha256(again)
    assert torch.equal(torch.rand(2), want)
    source = vr.build_source('timm/test_resnet(size=32)', weights=False, labels=digits.labels)
    model, result = trained(source, digits, vr.Padding(source), vr.RLM(1000, 10))
    loaded = vr.load_run(vr.save_run(tmp_path / 'run', model, digits, result), device='cpu').model
    assert torch.equal(loaded(digits.test.x), model(digits.test.x))

def test_nothing_is_half_written_or_replaced_unasked(digits, tmp_path, monkeypatch):
    source = vr.load_source(size=32)
    model, result = trained(source, digits, vr.Padding(source), vr.ILM(1000, 10))
    folder = vr.save_run(tmp_path / 'run', model, digits, result)
    with pytest.raises(ValueError, match='overwrite=True replaces it'): vr.save_run(folder, model, digits, result)
    def full(*_): raise OSError('the disk is full')
    monkeypatch.setattr(vr.runs, '_write_result', full)
    with pytest.raises(OSError, match='the disk is full'): vr.save_run(folder, model, digits, result, overwrite=True)
    assert vr.load_run(folder).labels == digits.labels and [p.name for p in tmp_path.iterdir()] == ['run']
    (folder / 'adapter.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='adapter.safetensors'): vr.load_run(folder)
    (folder / 'config.json').write_text('{')
    with pytest.raises(ValueError, match='with a config.json'): vr.load_run(folder)

# ---- a prompt and a mapping of one's own: one notebook each, and nothing else -----------------------------------------

PROMPT = '''#| exports
from torch import Tensor, nn

from vrlit.pixels import Pixels
---
#| exports
class Fade(nn.Module):
    "`f_in(x) = (a r(x) + (1 - a) sigmoid(delta) - mean) / std`: the image fades into a learned picture."
    recipes = {'clean-resnet': dict(epochs=20, lr=.01)}

    def __init__(self,
        source, # tells H, mean and std
        a: float = .5, # how much of the image is left
    ):
        super().__init__()
        self.a, self.r = a, Pixels(source)
        self.pattern = nn.Parameter(source.mean.new_zeros(len(source.mean), source.size, source.size))

    def forward(self, x: Tensor) -> Tensor:
        "Fade, normalise."
        return self.r.normalise(self.a * self.r(x) + (1 - self.a) * self.pattern.sigmoid())'''

MAPPING = '''#| exports
import torch
from torch import Tensor, nn

from vrlit.mappings.counts import LabelCounts
---
#| exports
class Vote(nn.Module):
    "Every source label speaks for the target label that it was said for most often."
    def __init__(self,
        S: int, # number of source labels
        K: int, # number of target labels
        least: int = 1, # counts below say nothing
    ):
        super().__init__()
        self.S, self.K, self.least = S, K, least
        self.register_buffer('weight', torch.full((S, K), 1 / S))

    def wants(self, epoch: int) -> LabelCounts: return LabelCounts(self.S, self.K)

    def update(self, stats: LabelCounts) -> None:
        n = stats.counts
        self.weight.copy_((n == n.amax(1, keepdim=True)) & (n >= self.least))

    def forward(self, logits: Tensor) -> Tensor: return logits @ self.weight
    def matrix(self) -> Tensor: return self.weight'''

USE = '''
import vrlit as vr
task, source = vr.load_task('digits', shots=4), vr.load_source(size=32)
model = vr.Reprogrammed(vr.Fade(source, a=.25), source, vr.Vote(source.S, task.K, least=2))
result = vr.fit(model, task, epochs=1, batch_size=16, device='cpu', progress=False)
run = vr.load_run(vr.save_run('run', model, task, result))
assert run.config['prompt'] == 'Fade(a=0.25)' and run.config['mapping'] == 'Vote(least=2)'
assert vr.evaluate(run.model, task.test) == vr.evaluate(model, task.test)
from vrlit.cli import app
for args in (['list', 'prompts', 'Fade'], ['list', 'mappings', 'Vote'],
             ['train', 'digits', '--source', 'embedded(size=32)', '--prompt', 'Fade(a=.1)', '--mapping', 'Residual(Vote)',
              '--shots', '4', '--epochs', '1', '--recipe', 'clean-resnet', '--no-progress', '--out', 'there'], ['eval', 'there']):
    app(args, standalone_mode=False)
'''

def test_a_new_method_is_one_notebook(checkout, python, tmp_path):
    for name, home, text in (('17_fade', 'prompts.fade', PROMPT), ('28_vote', 'mappings.vote', MAPPING)):
        assert len([line for line in text.splitlines() if line.strip() and not line.startswith(('#|', '---'))]) < 40
        cells = [nbformat.v4.new_markdown_cell(f'# {name[3:]}\n\n> One of our own.'), nbformat.v4.new_code_cell(f'#| default_exp {home}'),
                 *map(nbformat.v4.new_code_cell, text.split('\n---\n'))]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), checkout / 'nbs' / f'{name}.ipynb')
    python('-c', 'from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()', cwd=checkout)
    shutil.rmtree(checkout / 'nbs') # what is left is what a user has
    out = python('-c', USE, cwd=tmp_path, env=dict(PYTHONPATH=str(checkout)))
    assert 'Fade(a=0.5)\n    ' in out and 'Vote(least=1)\n    Every source label speaks' in out and 'written to there' in out, out
