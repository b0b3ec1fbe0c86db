"Wrong input is refused at the door: what was expected, what came; and what numbers a model holds, and in which precision"
import math
from types import SimpleNamespace

import numpy as np, pytest, torch
from torch import nn

import vrlit as vr

def source(size=16, S=12, channels=3, seed=0, **how):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, S))
    return vr.load_source(net, size=size, **how)

def data(n=80, K=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K
    return (torch.randint(0, 64, (n, 3, 16, 16), generator=g) + 48 * y.view(-1, 1, 1, 1)).to(torch.uint8), y

def task(**how): return vr.make_task('t', data(), data(seed=1), **how)
def model(mapping=vr.ILM, K=4, f=None): f = f or source(); return vr.Reprogrammed(vr.Watermark(f), f, mapping(f.S, K))
quick = dict(epochs=2, batch_size=16, lr=.1, progress=False, device='cpu')

# ---- settings ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('setting', [dict(lr=-1), dict(lr=math.nan), dict(lr=dict(pattern=-1)), dict(lr='a'), dict(gamma=-1), dict(momentum=2), dict(momentum=-.1), dict(momentum=1),
    dict(weight_decay=-1), dict(seed='a'), dict(seed=1.5), dict(seed=-1), dict(epochs=1.5), dict(epochs=True), dict(batch_size='8'), dict(flip='no'), dict(shuffle='no'), dict(map_fast=1),
    dict(milestones='a'), dict(milestones=.5), dict(keep=None), dict(augment=3), dict(optimizer=None), dict(schedule=None), dict(device=[]), dict(precision='half'), dict(precision=None), dict(eval_precision='auto'),
    dict(layout='nhwc'), dict(compile='fast'), dict(compile=True), dict(tf32='yes'), dict(map_every=0), dict(map_every=1.5), dict(map_memory=-.1), dict(map_memory=2)], ids=str)
def test_absurd_settings(setting):
    (name, _), = setting.items()
    with pytest.raises(ValueError, match=f'^{name}: '): vr.fit(model(), task(), **quick | setting)

@pytest.mark.parametrize('setting', [dict(shots=1.5), dict(shots=0), dict(size='a'), dict(size=0), dict(val=-1), dict(val=1), dict(val='a'), dict(crop='no'), dict(seed='a'), dict(mode=3),
                                     dict(memory=-1)], ids=str)
def test_absurd_loading(setting):
    (name, _), = setting.items()
    with pytest.raises(ValueError, match=f'^{name}: '): vr.load_task('digits', **setting)

@pytest.mark.parametrize('build, said', [(lambda f: vr.Padding(f, 1.5), 'inner'), (lambda f: vr.Watermark(f, 1.5), 'width'), (lambda f: vr.Watermark(f, init=-1), 'init'), (lambda f: vr.Watermark(f, seed='a'), 'seed'),
    (lambda f: vr.Patch(f, True), 'side'), (lambda f: vr.SMM(f, 4, train_body='no'), 'train_body'), (lambda f: vr.LowRank(f, 2.5), 'rank'), (lambda f: vr.Scale(f, scale='a'), 'scale'), (lambda f: vr.EVP(f, 100), 'width'),
    (lambda f: vr.AffineColor(f, 0), 'scale'), (lambda f: vr.Resized(f, 'nearest'), 'mode'), (lambda f: vr.ILM(-1, 4), 'S'), (lambda f: vr.ILM(12, 0), 'K'), (lambda f: vr.ILM(12, 4, 1.5), 'per_target'),
    (lambda f: vr.BLM(12, 4, 'a'), 'laplace'), (lambda f: vr.BLMPlus(12, 4, topk=1.5), 'topk'), (lambda f: vr.Sinkhorn(12, 4, -1), 'epsilon'), (lambda f: vr.FullyMap(12, 4, seed=-1), 'seed'), (lambda f: vr.FullyMap(12, '4'), 'K'),
    (lambda f: vr.RLM(12, 4, [.5, 1, 2, 3]), 'sequence'), (lambda f: vr.AttrVR(24, 4, k=9), 'k'), (lambda f: vr.PRM(12, 4, k=0), 'k'), (lambda f: vr.Augment(16, -1), 'plus'), (lambda f: vr.ResizedCrop(16, 'no'), 'flip'),
    (lambda f: vr.random_source(f, torch.zeros(1, 3, 16, 16), 'a'), 'seed'), (lambda f: vr.counting_squares(2.5), 'n')], ids=lambda v: v if isinstance(v, str) else '')
def test_absurd_parts(build, said):
    with pytest.raises(ValueError, match=rf'^{said}: expected'): build(source())

def test_milestones_are_rounded_as_one_would():
    falls = lambda m, E: next(e for e in range(E + 1) if vr.lr_factor('multistep', e, E, (m,)) < 1)
    assert falls(.29, 100) == 29 and falls(.57, 100) == 57 and falls(.33, 10) == 3
    for m in .5, .72: assert all(falls(m, E) == int(m * E) for E in range(2, 300)) # the published ones are as published

def test_labels_are_a_list_of_names():
    for labels in ('abcd', dict(a=0, b=1, c=2, d=3), [0, 1, 2, 3], {'a', 'b', 'c', 'd'}):
        with pytest.raises(ValueError, match='labels: expected names in a list'): task(labels=labels)
        with pytest.raises(ValueError, match='labels: expected names in a list'): source(S=4, labels=labels)
    assert task(labels=np.array(list('abcd'))).labels == list('abcd')

def test_arrays_that_are_flipped_or_of_another_machine():
    x, y = (v.numpy() for v in data(24))
    for other in ((np.flip(x, 0), y[::-1]), (np.flip(x / 255, 0).astype('>f4'), y[::-1].astype('>i8'))):
        other, same = (vr.make_task('t', pair, val=None) for pair in (other, (np.flip(x, 0).copy(), y[::-1].copy())))
        assert torch.equal(other.train.y, same.train.y) and torch.equal(vr.unit(other.train.x), vr.unit(same.train.x))

def test_ids_are_no_labels():
    "Label ids of 2e9 would take 16 GB to count"
    x, y = data()
    for ids in (y * 10**9, y - 1):
        with pytest.raises(ValueError, match=r'train: expected labels in 0\.\., got .*return_inverse=True\) makes numbers of ids'): vr.make_task('t', (x, ids))

# ---- one thing in the place of another -----------------------------------------------------------------------------

@pytest.mark.parametrize('door, said', [
    (lambda: vr.fit(model(), 'digits'), r"task: expected a task, as load_task\('digits'\) or make_task\(...\) gives, got str 'digits'"),
    (lambda: vr.fit('SMM', task()), r"model: expected a Reprogrammed\(prompt, source, mapping\), got str 'SMM'"),
    (lambda: vr.fit(source(), task()), 'model: expected a Reprogrammed.*, got Source'),
    (lambda: vr.load_source(torch.nn.functional.relu), r'model: expected a name or an nn.Module, got the function relu; did you forget the parentheses of relu\(\)'),
    (lambda: vr.load_source(nn.Linear), r'model: .*got the class Linear; did you forget the parentheses of Linear\(\)'),
    (lambda: vr.load_source(None), 'model: expected a name or an nn.Module, got NoneType'),
    (lambda: vr.Source(nn.Linear), 'model: expected an nn.Module, got the class Linear'),
    (lambda: vr.Reprogrammed(source(), vr.Watermark(source()), vr.ILM(12, 4)), 'prompt: expected a prompt, source: expected a source; got them in each other.s place'),
    (lambda: vr.Reprogrammed(vr.Watermark, source(), vr.ILM(12, 4)), 'prompt: expected an nn.Module, got the class Watermark; did you forget'),
    (lambda: vr.Watermark(nn.Linear(2, 2)), r'source: expected a source, such as load_source\(...\) gives, got Linear'),
    (lambda: vr.Padding('resnet18'), "source: expected a source, .* got str 'resnet18'"),
    (lambda: vr.load_task(None), r'name: expected a name \(list_tasks\(\) has them\), a path or a Hugging Face data set, got NoneType'),
    (lambda: vr.load_task(data()), r'name: .* got tuple; make_task\(name, \(x, y\)\) takes arrays'),
    (lambda: vr.make_task('t', data()[0]), 'train: expected a Split or a pair of images and labels, got Tensor'),
    (lambda: vr.TextSource('a photo', ['cat']), "clip: expected what load_clip gives, got str 'a photo'"),
    (lambda: vr.Residual(vr.ILM), 'base: expected a label mapping, got the class ILM; did you forget'),
    (lambda: vr.evaluate(model(), task()), 'split: expected a Split, .*got Task; task.test is one'),
    (lambda: vr.compare('m', task()), 'model: expected a Reprogrammed'),
    (lambda: vr.save_run('/nowhere', model(), task(), None), 'result: expected what fit or compare gave, got NoneType'),
    (lambda: vr.Decoupled('Padding'), "prompt: expected a prompt, got str 'Padding'"),
    (lambda: vr.Decoupled(source()), 'prompt: expected a prompt, got Source; as in Decoupled')], ids=lambda v: v if isinstance(v, str) else '')
def test_wrong_types(door, said):
    with pytest.raises(TypeError, match=said): door()

# ---- what a model holds --------------------------------------------------------------------------------------------

def test_an_adapter_that_is_none():
    m = model()
    before = m.adapter()
    with pytest.raises(ValueError, match='prompt.pattern: has values that are no numbers'): m.load_adapter(before | {'prompt.pattern': before['prompt.pattern'] * math.nan})
    for wrong in (12, -1, 10**9):
        with pytest.raises(ValueError, match=r'sequence: expected source labels in 0..11'): m.load_adapter({'prompt.pattern': before['prompt.pattern'] + 1, 'mapping.sequence': before['mapping.sequence'] * 0 + wrong})
    assert all(torch.equal(v, before[k]) for k, v in m.adapter().items()) # nothing was changed
    named = vr.SeMap(3, 2, (['cat', 'dog', 'sun'], ['a cat', 'xyz']))
    named.load_state_dict(named.state_dict()) # -1 is none there
    with pytest.raises(ValueError, match=r'sequence: expected source labels in -1..2'): named.load_state_dict(dict(sequence=torch.tensor([[3], [0]])))
    state = vr.to_official(m)
    state['visual_prompt_dict']['program'][0, 0, 0] = math.inf
    with pytest.raises(ValueError, match='checkpoint: it does not fit; pattern has values that are no numbers'): vr.from_official(m, state)

def test_weights_that_are_none(tmp_path):
    net = nn.Linear(3, 2)
    with torch.no_grad(): net.weight[0, 0] = math.nan
    torch.save(net.state_dict(), tmp_path / 'w.pt')
    with pytest.raises(ValueError, match='w.pt has values that are no numbers, in weight'): vr.read_weights(tmp_path / 'w.pt')

def test_floats_that_are_bytes():
    m, (x, _) = model(), data()
    for wrong in (x.float(), x / 255 - .5, torch.full((1, 3, 16, 16), math.nan)):
        with pytest.raises(ValueError, match=r'x: expected floats in \[0, 1\], got values from'): m(wrong)
    torch.testing.assert_close(m(x / 255), m(x))

@pytest.mark.parametrize('prompt', [vr.Watermark, lambda f: vr.Padding(f, 8), lambda f: vr.SMM(f, 4), vr.LowRank], ids='Watermark Padding SMM LowRank'.split())
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_source_of_another_precision(prompt, dtype):
    "Computes in it; what learns stays in single precision, and the result is near that of the source in single precision"
    task_, accuracy = task(), []
    for other in (torch.float32, dtype):
        f = source()
        f.to(other)
        m = vr.Reprogrammed(prompt(f), f, vr.BLM(12, 4))
        assert {p.dtype for p in m.trained().values()} == {torch.float32} and m(data()[0]).dtype == torch.float32
        vr.fit(m, task_, **quick)
        accuracy.append(vr.evaluate(m, task_.test).accuracy)
        assert next(f.model.parameters()).dtype == other
    assert abs(accuracy[0] - accuracy[1]) < .1 and accuracy[0] >= .25

@pytest.mark.parametrize('mapping', [vr.ILM, vr.BLM, vr.FullyMap])
def test_a_whole_model_of_another_precision(mapping):
    "Is evaluated right; in half precision it is not trained, and says why"
    m, t = model(mapping), task()
    vr.fit(m, t, **quick)
    want = vr.evaluate(m, t.test).accuracy
    for dtype in (torch.float64, torch.bfloat16, torch.float16): assert abs(vr.evaluate(m.to(dtype), t.test).accuracy - want) < .1
    with pytest.raises(ValueError, match=r'model: what learns needs single precision.*prompt.pattern \(torch.float16\)'): vr.fit(m, t, **quick)
    m = model(mapping).double()
    assert vr.fit(m, t, **quick).last['loss'] < 3 and m.prompt.pattern.dtype == torch.float64

def test_a_source_of_one_channel(tmp_path):
    f = source(channels=1, mean=(.5,), std=(.25,))
    x, y = data()
    for prompt in (vr.Watermark, lambda f: vr.Padding(f, 8), lambda f: vr.SMM(f, 4, channels=1), vr.LowRank, vr.AffineColor, vr.Scale, vr.EVP, vr.Patch, vr.Resized):
        p = prompt(f)
        assert p(x[:2]).shape == (2, 1, 16, 16) and p(x[:2] / 255).shape == (2, 1, 16, 16) and p(x[:2, :1]).shape == (2, 1, 16, 16)
    m, t = vr.Reprogrammed(vr.Watermark(f), f, vr.ILM(12, 4)), task()
    result = vr.fit(m, t, **quick)
    vr.show(m, t)
    run = vr.load_run(vr.save_run(tmp_path / 'run', m, t, result), source=f)
    assert torch.equal(run.model(x), m(x)) and (tmp_path / 'run' / 'pattern.png').exists()
    grey = vr.Reprogrammed(vr.Watermark(g := source()), g, vr.ILM(12, 4))
    torch.testing.assert_close(grey(x[:, :1]), grey(x[:, :1].repeat(1, 3, 1, 1))) # and grey images for a source of three

# ---- divergence ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('val', [.25, None])
@pytest.mark.parametrize('finished', [0, 1, 2])
def test_a_model_that_diverges_in_the_last_step(val, finished):
    "Its losses are numbers, and what the last step leaves is none"
    t, m, seen = vr.make_task('t', data(), data(seed=1), val=val), model(), []
    last = -(-len(t.train) // 16) * (finished + 1) # the last step of the epoch after those
    m.prompt.pattern.register_hook(lambda g: seen.append(1) or g * (1e60 if len(seen) == last else 1))
    before = m.prompt.pattern.detach().clone()
    with pytest.raises(vr.Diverged, match=f'at epoch {finished + 1}, after its last step; a lower lr may help') as e:
        vr.fit(m, t, **quick | dict(epochs=4, optimizer='sgd', lr=1.))
    assert e.value.result.epochs == finished and e.value.result.diverged
    assert all(v.isfinite().all() for v in m.adapter().values()) and not m.training
    if not finished: assert torch.equal(m.prompt.pattern, before) # and the mapping is the one pass's
    assert vr.evaluate(m, t.test).accuracy == e.value.result.selected['test_acc']

# ---- what a number means -------------------------------------------------------------------------------------------

def test_least_error_of_a_target_that_broadcasts():
    x = torch.rand(5, 3, 8, 8)
    f = vr.pixel_source(8)
    for wrong in (x[:1], x[0], x[..., :1]):
        with pytest.raises(ValueError, match=r'target: expected \[5, 3, 8, 8\], got'): vr.least_error(vr.Watermark(f), x, wrong)

def test_the_share_of_a_model_at_chance():
    def of(acc, **controls):
        r = lambda a: vr.Result(dict(seed=0), task=dict(K=10, splits=dict(test=dict(images=100))), log=[dict(epoch=0, val_acc=a, test_acc=a, seconds=0.)])
        return vr.Comparison(r(acc), {k: r(a) for k, a in controls.items()})
    assert of(.11, random=.18, constant=.10).share() is None # "-700 %"
    assert of(.15, random=.12, constant=.10).share() is None and of(.10, random=.12).share() is None # two standard errors are 6 points
    assert of(.9, random=.5, constant=.1).share() == pytest.approx(.5)
    with pytest.raises(ValueError, match="control: expected one that was trained \\(random\\), got 'foo'"): of(.9, random=.5).share('foo')

# ---- random weights ------------------------------------------------------------------------------------------------

def test_random_weights_are_had_by_asking():
    for weights in (None, 0, ''):
        with pytest.raises(ValueError, match='^weights: '): vr.load_source('resnet18', weights)
    with pytest.raises(ValueError, match='weights: timm has none for coatnet_0_224; pass a file, or weights=False'): vr.load_source('timm/coatnet_0_224')
    with pytest.raises(ValueError, match='pretrained: coca_base has .*pretrained=False for random weights'): vr.load_clip('coca_base')
    with pytest.raises((ConnectionError, ValueError), match='openai'): vr.load_clip('ViT-B-32') # OpenAI's, which are not here
    with pytest.raises((ConnectionError, ValueError), match='openai'): vr.text_encoder('ViT-B-32')

# ---- weights of the classes, smoothing, selection ------------------------------------------------------------------

def uneven(): # 64 images of label 0, 8 of each other
    x, y = data(256)
    some = torch.cat([(y == 0).nonzero()[:, 0][:64], *((y == k).nonzero()[:, 0][:8] for k in (1, 2, 3))])
    return vr.make_task('uneven', (x[some], y[some]), data(seed=1), val=data(40, seed=2))

def test_class_weights_and_smoothing_are_torchs():
    t = uneven()
    assert vr.class_weights('balanced', t).tolist() == pytest.approx([88 / 4 / n for n in (64, 8, 8, 8)])
    losses = lambda **kw: vr.fit(model(vr.RLM), t, **quick | dict(epochs=1, shuffle=False) | kw).losses
    m, (x, y) = model(vr.RLM), t.train[:16]
    z = m(x)
    for given, want in ((dict(class_weight='balanced'), dict(weight=vr.class_weights('balanced', t))), (dict(class_weight=[1, 2, 3, 4]), dict(weight=torch.tensor([1., 2, 3, 4]))),
                        (dict(label_smoothing=.3), dict(label_smoothing=.3)), ({}, {})):
        assert losses(**given)[0] == pytest.approx(float(nn.functional.cross_entropy(z, y, **want)))
    for wrong in ('even', [1, 2], [1, 2, 3, -1], [0, 0, 0, 0], [1, 2, 3, 0], [1, 2, 3, 'a'], 3):
        with pytest.raises(ValueError, match='^class_weight: expected'): losses(class_weight=wrong)
    for wrong in (dict(label_smoothing=2), dict(select='loss')):
        with pytest.raises(ValueError, match=f'^{next(iter(wrong))}: expected'): losses(**wrong)

def test_selection_by_balanced_accuracy():
    from sklearn.metrics import balanced_accuracy_score
    t, m = uneven(), model()
    t.val = vr.Split(*t.val[torch.cat([(t.val.y == 0).nonzero()[:, 0], (t.val.y == 1).nonzero()[:2, 0]])]) # two of the labels, ten and two images
    r = vr.fit(m, t, **quick | dict(epochs=6, select='balanced'))
    assert r.selected is max(r.log, key=lambda row: row['val_balanced']) and 'val_balanced' not in vr.fit(model(), t, **quick).last
    with torch.no_grad(): said = m(t.val.x).argmax(1)
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # of labels that are said and do not occur
        assert r.selected['val_balanced'] == pytest.approx(balanced_accuracy_score(t.val.y, said))
