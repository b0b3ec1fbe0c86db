"The ladder: its rows are what the parts give by themselves, on any source, and on photographs what a source is worth"
import pytest, torch
from torch import nn

import vrlit as vr

def small(net=None, **kw):
    source = vr.load_source(net or nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 20)), size=16, **kw)
    g = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    x = (torch.rand(240, 3, 8, 8, generator=g) * 120 + 60 * y[:, None, None, None]).byte()
    return source, vr.make_task('t', (x[:180], y[:180]), (x[180:], y[180:]), list('abc'), val=.2)

def rows(ladder): return {(r['source'].partition(',')[2], r['method']): r for r in ladder.rows}

def test_rows_are_what_the_parts_give():
    source, task = small()
    found = rows(vr.ladder(task, source, device='cpu', progress=False))
    of_features = vr.features(source)
    for method, f_pre, mapping in (('OLM', source, vr.OLM), ('BLM', source, vr.BLM), ('BLM+', source, vr.BLMPlus), ('discriminant', source, vr.Discriminant), ('discriminant on features', of_features, vr.Discriminant)):
        model = vr.Reprogrammed(vr.Resized(source), f_pre, mapping(f_pre.S, task.K))
        vr.update_mapping(model, task.train)
        for part in 'val', 'test': assert found['', method][part] == pytest.approx(vr.evaluate(model, task.splits[part]).accuracy, abs=.02), method
        assert found['', method]['numbers'] == sum(v.numel() for k, v in model.adapter().items())
    assert found['', 'chance']['val'] == pytest.approx(1 / 3, abs=.02) and found['', 'pixels, discriminant']['test'] > .9
    assert found['', 'linear probe']['numbers'] == 33 * 3 and (' random weights', 'discriminant') in found

def test_the_order_and_the_verdict_are_validations():
    source, task = small()
    ladder = vr.ladder(task, [source, source], device='cpu', progress=False)
    values = [r['val'] for r in ladder.rows]
    assert values == sorted(values, reverse=True) and ladder.best is ladder.rows[0]
    control = [r['val'] for r in ladder.rows if r in ladder.controls()]
    assert len(control) == 4 and ladder.gain() == max(v for v, r in zip(values, ladder.rows) if r not in ladder.controls()) - max(control)
    text, html = repr(ladder), ladder._repr_html_()
    for word in 'discriminant on features', 'linear probe', f'{100 * abs(ladder.gain()):.1f} points {"above" if ladder.gain() >= 0 else "below"}': assert word in text and word in html
    assert len(ladder.plot().axes[0].patches) == len(ladder.rows)

def test_the_seed_draws_the_random_weights():
    source, task = small()
    value = lambda seed: [(r['source'], r['method'], r['val'], r['test']) for r in vr.ladder(task, source, seed=seed, device='cpu', progress=False).rows]
    assert value(1) == value(1)

def test_sources_of_other_shapes():
    "No linear layer at the end, no parameters at all, fewer source labels than target labels; the source stays as it is"
    _, task = small()
    pooled = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())                       # [B, 48], nothing to draw anew
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    for net, none, some in ((pooled, ('linear probe', 'discriminant on features'), 'OLM'), (narrow, ('OLM',), 'linear probe')):
        source = vr.load_source(net, size=16)
        before = {k: v.clone() for k, v in source.state_dict().items()}
        ladder = vr.ladder(task, source, device='cpu', progress=False)
        methods = [r['method'] for r in ladder.rows]
        assert some in methods and not set(none) & set(methods)
        assert any('random' in r['source'] for r in ladder.rows) == (net is narrow)
        assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items())
        assert not any(m._forward_pre_hooks for m in source.modules())

def test_a_source_of_21841_labels_is_measured_on_its_features():
    "The moments of so many logits would take 3.8 GB; those of 32 features are 36 kB"
    source, task = small(nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 21_841)))
    with pytest.raises(ValueError, match=r'at most 134,217,728 numbers \(1 GB\), 21841 source and 3 target labels need 477,.*; features\(source\) gives fewer'): vr.Discriminant(source.S, 3)
    ladder = vr.ladder(task, source, device='cpu', progress=False)
    found = [(r['method'], r['control']) for r in ladder.rows]
    assert ('discriminant on features', True) in found and ('discriminant on features', False) in found and ('discriminant', False) not in found and ('BLM', False) in found
    model = vr.Reprogrammed(vr.Watermark(source), vr.features(source), vr.Discriminant(32, 3)) # and under a prompt
    assert vr.fit(model, task, epochs=1, batch_size=60, device='cpu', progress=False).before['val_acc'] == rows(ladder)['', 'discriminant on features']['val']

def test_names_are_a_rung_where_they_mean_something():
    source, task = small(labels=[f'{a} {b}' for a in ('red', 'blue', 'green', 'grey') for b in 'dog cat bird fish horse'.split()])
    assert (('', 'SeMap (names)') in rows(vr.ladder(task, source, device='cpu', progress=False))) is False
    task.labels = ['dog', 'cat', 'bird']
    assert ('', 'SeMap (names)') in rows(vr.ladder(task, source, device='cpu', progress=False))

def test_what_it_refuses():
    source, task = small()
    for error, message, call in ((TypeError, 'task: expected a task', lambda: vr.ladder('digits')), (TypeError, 'sources: expected a source, its name, or a list', lambda: vr.ladder(task, 3)),
                                 (TypeError, 'sources: expected a source or a name, got int', lambda: vr.ladder(task, [3])), (ValueError, 'sources: expected at least one', lambda: vr.ladder(task, [])),
                                 (ValueError, 'batch_size: expected a whole number', lambda: vr.ladder(task, source, batch_size=0)), (ValueError, 'device', lambda: vr.ladder(task, source, device='nowhere')),
                                 (ValueError, 'task: expected validation images', lambda: vr.ladder(vr.make_task('t', task.train, task.test, task.labels, val=None), source))):
        with pytest.raises(error, match=message): call()

def no_seconds(ladder): return sorted(str({k: v for k, v in r.items() if k != 'seconds'}) for r in ladder.rows)

def test_what_is_large_goes_to_a_file(tmp_path, monkeypatch):
    "The same rows; and no file is left"
    monkeypatch.setenv('TMPDIR', str(tmp_path)); monkeypatch.setattr('tempfile.tempdir', None)
    source, task = small()
    used, empty = [], vr.ladders._Table._empty
    def spied(self, *shape): used.append(len(list(tmp_path.rglob('*')))); return empty(self, *shape)
    monkeypatch.setattr(vr.ladders._Table, '_empty', spied)
    on_disk = vr.ladder(task, source, memory=0., device='cpu', progress=False)
    assert max(used) >= 4 and not list(tmp_path.iterdir())
    assert no_seconds(on_disk) == no_seconds(vr.ladder(task, source, device='cpu', progress=False))

def test_prompts_within_a_budget():
    "The rows without a prompt stay as they are; a prompt's row is what validation selects; a share too small for an epoch warns"
    source, task = small()
    found = vr.ladder(task, source, minutes=.2, device='cpu', progress=False)
    assert [r for r in no_seconds(found) if "'epochs': 0" in r] == no_seconds(vr.ladder(task, source, device='cpu', progress=False))
    prompts = {r['method']: r for r in found.prompted()}
    assert set(prompts) == {'watermark, ILM', 'watermark, discriminant', 'SMM, ILM', 'SMM, discriminant'} and all(1 <= r['epochs'] <= 100 and not r['control'] for r in prompts.values())
    one_pass = rows(found)['', 'discriminant']
    for name in 'watermark', 'SMM': assert prompts[f'{name}, discriminant']['val'] >= one_pass['val']
    assert prompts['watermark, ILM']['numbers'] == 3 * 16 * 16 + 3
    assert found.prompt_gain() == max(r['val'] for r in prompts.values()) - max(r['val'] for r in found.rows if not r['epochs'])
    assert 'the best prompt' in repr(found) and 'epochs' in repr(found)
    with pytest.warns(UserWarning, match='minutes: .*, SMM, ILM is left out; an epoch takes about'): none = vr.ladder(task, source, minutes=1e-6, device='cpu', progress=False)
    assert not none.prompted() and 'no prompt' in repr(none)
    with pytest.raises(ValueError, match='minutes: expected some for prompts'): none.prompt_gain()

def test_texts_are_a_rung_where_they_are_the_targets():
    "CLIP: zero-shot, and its image embeddings are the features"
    clip, task = vr.load_clip(size=64), vr.load_task('digits', shots=4)
    named, described = (vr.TextSource(clip, texts, labels) for texts, labels in ((vr.label_texts(task.labels), task.labels), (vr.attribute_texts(*vr.example_attributes('digits'), labels=task.labels), None)))
    found = vr.ladder(task, [named, described], device='cpu', progress=False)
    zero = [r for r in found.rows if r['method'] == 'zero-shot (texts)']
    model = vr.Reprogrammed(vr.Resized(named), named, vr.OneToOne(10, 10))
    assert len(zero) == 1 and zero[0]['test'] == pytest.approx(vr.evaluate(model, task.test).accuracy, abs=.005)
    numbers = {r['numbers'] for r in found.rows if r['method'] == 'linear probe'}
    assert numbers == {(named.embeddings.shape[1] + 1) * 10}

def test_photographs_show_what_a_source_is_worth(shared):
    "2,000 images of CIFAR-10 to make the mappings, at 128 pixels"
    all_ = vr.load_task(str(shared('datasets/cifar10_10ktrain_10ktest_jpg.zip')), shots=220, val=0.)
    task = vr.make_task('cifar10', all_.train, all_.test[range(0, len(all_.test), 5)], all_.labels, val=200 / 2200)
    assert len(task.train) == 2000
    ladder = vr.ladder(task, vr.load_source(size=128), device='cpu', progress=False)
    test = {k: r['test'] for k, r in rows(ladder).items()}
    assert test['', 'discriminant'] >= .67 and ladder.gain() > .25
    assert max(test['', m] for m in ('OLM', 'BLM', 'BLM+', 'SeMap (names)')) < .58 and test['', 'pixels, discriminant'] < .35 and test[' random weights', 'discriminant'] < .2
