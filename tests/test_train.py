"Training: what it leaves alone, what it repeats, and what it says when the data are not as they should be"
import inspect
from types import SimpleNamespace

import pytest, torch
from torch import nn

import vrlit as vr

def model(mapping, K=4, size=16):
    "A small random source of 12 labels, and a full watermark"
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 12))
    source = vr.load_source(net, size=size)
    return vr.Reprogrammed(vr.Watermark(source), source, mapping(12, K))

def data(n=80, K=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K
    return (torch.randint(0, 64, (n, 3, 16, 16), generator=g) + 48 * y.view(-1, 1, 1, 1)).to(torch.uint8), y

quick = dict(epochs=2, batch_size=16, lr=.1, progress=False, device='cpu')

@pytest.mark.parametrize('mapping', [vr.RLM, vr.FLM, vr.ILM])
def test_the_source_is_bit_identical_after_training(mapping):
    m, task = model(mapping), vr.make_task('t', data())
    before = {k: v.clone() for k, v in m.source.state_dict().items()}
    assert len(before) >= 8 and any('running_mean' in k for k in before)
    around = nn.ModuleList([m]).train().requires_grad_()  # somebody reaches for the source from above
    vr.fit(around[0], task, keep='last', **quick)
    assert all(torch.equal(v, before[k]) for k, v in m.source.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in m.source.parameters()) and m.prompt.pattern.abs().sum() > 0

def test_a_seed_decides_everything():
    task, run = vr.make_task('t', data()), lambda **kw: (lambda m: (vr.fit(m, task, **quick | kw), m))(model(vr.ILM))
    (a, m), (b, n), (c, _) = run(seed=3), run(seed=3), run(seed=4)
    no_time = lambda log: [{k: v for k, v in row.items() if k != 'seconds'} for row in log]
    assert a.losses == b.losses and no_time(a.log) == no_time(b.log) and a.losses != c.losses
    assert all(torch.equal(v, n.adapter()[k]) for k, v in m.adapter().items())

def test_recipes_are_arguments_of_fit():
    for name, prompt in vr.list_prompts().items():
        if name == 'Resized': continue # nothing of it is trained
        kinds = {k.split('-')[0] for k in prompt.recipes}
        assert kinds - {'fast'} == {'paper', 'clean'} or kinds == {'clean'} and name == 'AffineColor', name # of that paper no settings are known
        for recipe in prompt.recipes.values(): inspect.signature(vr.fit).bind(None, None, **recipe)
        for backbone in {k.split('-')[1] for k in prompt.recipes if k.startswith('paper')}:
            paper, fast = (prompt.recipes.get(f'{kind}-{backbone}', {}) for kind in ('paper', 'fast'))
            assert not fast or (10 * fast['epochs'], 4 * fast['batch_size']) == (paper['epochs'], paper['batch_size'])
    assert [p.recipes['fast-resnet']['lr'] for p in (vr.Padding, vr.Watermark, vr.SMM)] == [.1, .1, .01] and 'fast-clip' not in vr.Padding.recipes
    for name in 'paper-resnet', 'clean-resnet', 'fast-resnet':
        m = model(vr.ILM)
        assert len(vr.fit(m, vr.make_task('t', data()), **m.prompt.recipes[name] | quick).log) == 3

def test_training_leaves_the_global_generator_alone():
    m = model(vr.ILM)
    torch.manual_seed(7); want = torch.rand(3)
    torch.manual_seed(7); vr.fit(m, vr.make_task('t', data()), **quick)
    assert torch.equal(torch.rand(3), want)

def test_a_class_missing_from_training():
    (x, y), test = data(), data(seed=1)
    with pytest.warns(UserWarning, match=r"no training image of \['1'\]"):
        task = vr.make_task('t', (x[y != 1], y[y != 1]), test, labels=list('0123'), val=None)
    assert task.K == 4 and task.train.y.unique().tolist() == [0, 2, 3] # nobody moved up

    answer = torch.tensor([7, -1, 5, 0])                               # the source label that is said to each class
    stats = vr.LabelCounts(12, 4).update(torch.eye(12)[answer[task.train.y]], task.train.y)
    assert stats.counts.sum(0).tolist() == [20, 0, 20, 20]             # its column is empty, and the others keep theirs
    mapping = vr.ILM(12, 4)
    with pytest.warns(UserWarning, match='no training data of target label 1'): mapping.update(stats)
    assert mapping.sequence[:, 0].tolist() == [7, 1, 5, 0]             # the lowest free source label, as published

    with pytest.warns(UserWarning, match='no training data of target label 1'): assert len(vr.fit(model(vr.ILM), task, **quick).log) == 3

def test_labels_out_of_range():
    x, y = data()
    with pytest.raises(ValueError, match=r'train: expected labels in 0\.\.2'): vr.make_task('t', (x, y), (x, y), labels=list('abc'))
    stray = SimpleNamespace(K=3, labels=list('abc'), train=vr.Split(x, y), val=None, test=vr.Split(x, y)) # not checked by Task
    with pytest.raises(ValueError, match='target labels are not among 0..2'): vr.fit(model(vr.ILM, 3), stray, **quick)

@pytest.mark.parametrize('x, said', [
    (torch.zeros(8, 3, 16, 16, dtype=torch.int64), 'expected uint8 images, or floating'),
    (torch.full((8, 3, 16, 16), 255.), r'floating images in \[0, 1\], got values from 255'),
    (torch.zeros(8, 16, 16, 3, dtype=torch.uint8), r'permute\(0, 3, 1, 2\)'),
    (torch.zeros(8, 2, 16, 16, dtype=torch.uint8), 'expected images of shape'),
    (torch.zeros(7, 3, 16, 16, dtype=torch.uint8), 'got 8 labels for 7 images')], ids='integers bytes-as-floats channels-last two-channels too-few'.split())
def test_images_of_another_kind(x, said):
    with pytest.raises(ValueError, match=said): vr.make_task('t', (x, torch.arange(8) % 4))

def test_more_target_labels_than_source_labels():
    for mapping in vr.RLM, vr.FLM, vr.ILM:
        with pytest.raises(ValueError, match='13 target labels at 1 source label each need 13, the source has 12'): mapping(12, 13)

def test_three_reports():
    task = vr.make_task('t', data(), data(seed=1), val=.25)
    m = model(vr.ILM)
    r = vr.fit(m, task, **quick | dict(epochs=4))
    assert [row['epoch'] for row in r.log] == [0, 1, 2, 3, 4] and r.before is r.log[0] and r.last is r.log[-1] and r.log[0]['remapped'] > 0
    assert r.selected is max(r.log, key=lambda row: row['val_acc']) and r.test_best['test_acc'] == max(row['test_acc'] for row in r.log)
    assert vr.evaluate(m, task.test).accuracy == r.selected['test_acc'] # the model holds the selected epoch
    last = model(vr.ILM)
    r = vr.fit(last, task, **quick | dict(epochs=4, keep='last'))
    assert vr.evaluate(last, task.test).accuracy == r.last['test_acc']

def test_augmentation_by_name_is_the_augmentation():
    "At the size that the prompt resizes to: the source's, or what is inside the frame"
    task = vr.make_task('t', data(), flip=False)
    for inner in 16, 10:
        def run(**kw):
            m = model(vr.ILM)
            if inner == 10: m.prompt = vr.Padding(m.source, inner)
            return vr.fit(m, task, **quick | kw).losses
        assert run(augment='+4') == run(augment='+4', flip=False) == run(augment=vr.Augment(inner, 4, flip=False))
        assert run(augment='+4', flip=True) == run(augment=vr.Augment(inner, 4, flip=True)) != run(augment='+4')
        assert run(augment='20+0') == run(augment=lambda x, g: vr.resize(x, 20))

def test_the_fast_mapping_is_made_from_the_training_pass():
    "As BayesianLM's faster program: the first mapping from a pass of its own, every later one from what the training pass before it said"
    said = []
    class Spied(vr.BLM):
        def forward(self, logits):
            if self.training: said.append(logits.detach().clone())
            return super().forward(logits)
    task, mappings = vr.make_task('t', data(), val=None), []
    m = model(Spied)
    vr.fit(m, task, epochs=3, batch_size=8, lr=.1, shuffle=False, map_fast=True, progress=False, callback=lambda row, m: mappings.append(m.mapping.matrix().clone()))
    y, passes = task.train.y, torch.cat(said).split(len(task.train))
    for logits, mapping in zip(passes, mappings[1:]):
        torch.testing.assert_close(mapping, vr.bayesian_weights(vr.LabelCounts(12, 4).update(logits, y).counts).float())
    assert len(passes) == 3 and not torch.equal(mappings[1], mappings[2])

def test_the_pass_for_the_mapping():
    "By default nothing moves but the mapping; as published, batch norm learns from the pass before the first epoch"
    m, task = model(vr.ILM), vr.make_task('t', data())
    m.prompt = vr.SMM(m.source, patch=4)
    tracked = lambda: int(m.prompt.mask_generator.bn1.num_batches_tracked)
    vr.update_mapping(m, task.train, batch_size=16)
    assert tracked() == 0
    vr.update_mapping(m, task.train, batch_size=16, training=True)
    assert tracked() == -(-len(task.train) // 16) and m.prompt.training and not m.source.model.training
    steps, once = -(-len(task.train) // 16), lambda **kw: vr.fit(m, task, **quick | dict(epochs=2, batch_size=16, keep='last') | kw)
    before = tracked(); once(); assert tracked() == before + 2 * steps
    before = tracked(); once(map_training=True); assert tracked() == before + 3 * steps # the first of two passes
    seen = []
    vr.update_mapping(m, task.train, 1, 16, lambda x, g: seen.append(len(x)) or x, torch.Generator().manual_seed(0))
    assert sum(seen) == len(task.train)

def test_epochs_0_is_one_pass():
    "The row before the first step: the same from `epochs=0`, from `update_mapping`, and first in any log; nothing need be trained"
    task = vr.make_task('t', data())
    one, by_hand = model(vr.Discriminant), model(vr.Discriminant)
    r = vr.fit(one, task, **quick | dict(epochs=0))
    vr.update_mapping(by_hand, task.train, batch_size=quick['batch_size']) # sums in the same order, whatever the number of threads
    assert all(torch.equal(v, by_hand.adapter()[k]) for k, v in one.adapter().items()) and not one.training
    row = r.before
    assert (r.epochs, r.losses, row['epoch'], row['lr'], row['loss'], row['train_acc']) == (0, [], 0, None, None, None) and row is r.selected is r.last
    more = vr.fit(model(vr.Discriminant), task, **quick, layout='loaded')
    assert {k: v for k, v in more.before.items() if k != 'seconds'} == {k: v for k, v in row.items() if k != 'seconds'} and list(more.last) == list(row)
    faster = vr.fit(model(vr.Discriminant), task, **quick).before
    assert all(v == pytest.approx(row[k], rel=1e-5) for k, v in faster.items() if k != 'seconds' and v is not None)
    untrained = vr.Reprogrammed(vr.Resized(one.source), one.source, vr.ILM(12, 4))
    assert vr.fit(untrained, task, **quick | dict(epochs=0)).before['remapped'] == 4
    with pytest.raises(ValueError, match='nothing in it is trained'): vr.fit(untrained, task, **quick)
    assert '0 epochs' in repr(r) and r._repr_html_() and r.plot() is not None

def test_a_prompt_that_harms_is_not_selected():
    task, m = vr.make_task('t', data()), model(lambda S, K: vr.Discriminant(S, K, once=True))
    r = vr.fit(m, task, **quick | dict(lr=1e3))
    assert r.last['val_acc'] < r.before['val_acc'] and r.selected is r.before
    assert not m.prompt.pattern.any() and vr.evaluate(m, task.test).accuracy == r.before['test_acc']

@pytest.mark.parametrize('fast', [False, True])
def test_a_fresh_mapping_is_tested_as_the_epoch_left_it(fast):
    "The discriminant's row after an epoch is that of the prompt and its own moments; what is trained stays the same"
    class Stale(vr.Discriminant): fresh = False
    task, rows = vr.make_task('t', data(), data(seed=1)), []
    def run(mapping, **kw):
        m = model(mapping)
        return m, vr.fit(m, task, **quick | dict(epochs=3, keep='last', map_fast=fast) | kw)
    def after(row, m):
        again = vr.Reprogrammed(m.prompt, m.source, vr.Discriminant(12, 4))
        vr.update_mapping(again, task.train, batch_size=16)
        rows.append((row['test_acc'], vr.evaluate(again, task.test).accuracy, torch.equal(again.mapping.W, m.mapping.W)))
    m, fresh = run(vr.Discriminant, callback=after)
    assert fresh.losses == run(Stale)[1].losses and len(rows) == 3
    if not fast: assert all(a == b and same for a, b, same in rows)
    assert fresh.last['test_acc'] == vr.evaluate(m, task.test).accuracy
    once = run(lambda S, K: vr.Discriminant(S, K, once=True))
    assert [r['remapped'] for r in once[1].log[1:]] == [0, 0, 0]
