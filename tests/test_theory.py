"Controls and probes: what they compare with, and cases whose answer is known"
import json, warnings

import pytest, torch
from torch import nn

import vrlit as vr

@pytest.fixture(scope='module')
def digits():
    task = vr.load_task('digits')
    return vr.make_task('few', task.train.take(torch.arange(64)), task.test.take(torch.arange(40)), task.labels, val=None)

@pytest.fixture(scope='module')
def source(): return vr.load_source(size=64)

def run(source, task, prompt=vr.Watermark, **settings):
    model = vr.Reprogrammed(prompt(source), source, vr.ILM(source.S, task.K))
    return vr.fit(model, task, **dict(epochs=2, batch_size=32, lr=.1, device='cpu', progress=False) | settings), model

# --- the control of `fit`

def test_a_control_changes_nothing_about_the_model(source, digits):
    plain, model = run(source, digits, vr.SMM)
    both, same = run(source, digits, vr.SMM, control=('random', 'constant'))
    assert both.losses == plain.losses and all(torch.equal(v, same.adapter()[k]) for k, v in model.adapter().items())
    assert list(both.controls) == ['random', 'constant'] and same.source is source and not plain.controls

def test_a_control_is_the_same_training_on_another_source(source, digits):
    result, _ = run(source, digits, vr.SMM, control='random')
    fresh = vr.Reprogrammed(vr.SMM(source), source, vr.ILM(source.S, 10))
    model, task = vr.control_model(fresh, digits, 'random')
    assert vr.fit(model, task, epochs=2, batch_size=32, lr=.1, device='cpu', progress=False).losses == result.controls['random'].losses

@pytest.mark.parametrize('arch', ['timm/test_resnet', 'timm/test_vit', 'timm/test_convnext'])
def test_random_source_of_real_architectures(arch):
    "Of a residual net, a transformer and a ConvNeXt: other weights, outputs that are finite and tell images apart"
    torch.manual_seed(0)
    f, z = vr.load_source(arch, weights=False, size=64), torch.randn(16, 3, 64, 64)
    g = vr.random_source(f, z, seed=1)
    assert type(g) is type(f) and g.S == f.S and g.name.endswith('random weights')
    with torch.no_grad(): a, b = f(z), g(z)
    assert b.isfinite().all() and b.std(0).mean() > 1e-4 * b.std() and not torch.allclose(a, b, atol=1e-3)

def test_random_source_keeps_the_texts_of_clip():
    clip = vr.load_clip('miniature')
    f = vr.TextSource(clip, ['a photo of a cat.', 'a photo of a dog.'])
    g = vr.random_source(f, torch.randn(4, 3, f.size, f.size))
    assert torch.equal(g.embeddings, f.embeddings) and g.labels == f.labels

def test_constant_images_give_the_most_frequent_label_at_most(source, digits):
    result, _ = run(source, digits, control='constant')
    share = max((digits.test.y == k).float().mean() for k in range(10))
    assert result.controls['constant'].selected['test_acc'] <= share + 1e-6

def test_a_source_that_ignores_its_input_is_worth_nothing(digits):
    class Deaf(nn.Module):
        def __init__(self): super().__init__(); self.weight = nn.Parameter(torch.randn(20))
        def forward(self, x): return self.weight.expand(len(x), -1) + 0 * x.sum((1, 2, 3))[:, None]
    deaf = vr.load_source(Deaf(), size=32)
    result, _ = run(deaf, digits, vr.SMM, control=('random', 'constant'))
    shares = {int((digits.test.y == k).sum()) / len(digits.test) for k in range(10)}
    assert {r.last['test_acc'] for r in (result, *result.controls.values())} <= shares

def test_a_separable_task_is_the_same_without_knowledge():
    "Black and white images, and a source that takes means: any weights will do, so no share is the source's"
    x = torch.cat([torch.zeros(20, 3, 8, 8), torch.ones(20, 3, 8, 8)])
    task = vr.make_task('two', (x, torch.arange(40) // 20), (x, torch.arange(40) // 20), ['black', 'white'], val=None)
    torch.manual_seed(0)
    f = vr.load_source(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 50)), size=32)
    result, _ = run(f, task, control=('random', 'constant'))
    assert result.last['test_acc'] == result.controls['random'].last['test_acc'] == 1 and result.controls['constant'].last['test_acc'] == .5
    assert result.share() == 0 and result.share('constant') == 1 and '0% of what is above chance comes from the source' in repr(result)

def test_an_interrupt_of_a_control_keeps_what_was_learned(source, digits, monkeypatch):
    import vrlit.train as train
    whole, _ = run(source, digits)
    def interrupt(*_): raise KeyboardInterrupt
    monkeypatch.setattr(train, 'control_model', interrupt)
    with pytest.warns(UserWarning, match='interrupted after 2 of 2 epochs'): result, model = run(source, digits, control='random')
    assert result.interrupted and result.losses == whole.losses and not result.controls and not model.training

def test_a_control_that_diverges_is_given_up_and_nothing_else(source, digits, monkeypatch):
    import vrlit.train as train
    class Broken(nn.Module):
        def forward(self, x): return x.new_full((len(x), 1000), float('nan')) + 0 * x.sum()
    monkeypatch.setattr(train, 'control_model', lambda model, task, *_: (vr.Reprogrammed(model.prompt, Broken(), model.mapping), task))
    with pytest.warns(UserWarning, match="the control 'random' was given up"): result, _ = run(source, digits, control='random')
    assert not result.controls and not result.interrupted

def test_a_wrong_control_is_told_before_anything_runs(source, digits):
    with pytest.raises(ValueError, match="control: expected 'random' or 'constant', got 'shuffled'"): run(source, digits, control=('random', 'shuffled'))
    flat = vr.load_source(nn.Flatten(), size=8)
    with pytest.raises(ValueError, match="control: 'random' needs a source with weights"): run(flat, digits, control='random')

