"Faster ways to compute the same: folded batch norms, layouts, precisions, memory that stays, batches that fit; and fewer passes"
import copy, json, shutil, statistics, warnings

import pytest, torch
from torch import nn

import vrlit as vr
from test_train import data, model, quick

def shaken(net, seed=0):
    "Batch norms with statistics, weights and biases of their own"
    torch.manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            for v, low, high in (m.running_mean, -.2, .2), (m.running_var, .5, 2.), (m.weight, .5, 1.5), (m.bias, -.2, .2): nn.init.uniform_(v.data, low, high)
    return net.eval().requires_grad_(False)

def norms(net): return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())

def answer(net, x):
    x = x.clone().requires_grad_()
    y = net(x)
    return y.detach(), torch.autograd.grad(y.logsumexp(1).sum(), x)[0]

def close(a, b, tol): return all((u - v).abs().max() <= tol * v.abs().max() for u, v in zip(a, b))

# ---- folding -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['torchvision/resnet50', 'torchvision/mobilenet_v3_small', 'torchvision/regnet_y_400mf', 'torchvision/efficientnet_b0', 'torchvision/vgg11_bn',
                                  'timm/mobilenetv2_100', 'timm/tf_efficientnet_lite0', 'timm/resnet18d', 'timm/regnetx_002', 'timm/dla34', 'timm/mobilenetv4_conv_small'])
def test_folding_is_exact(name):
    "Logits and gradient at the input, on networks of both libraries; the network that was given stays as it was"
    torch.manual_seed(0)
    net, x = shaken(vr.load_source(name, weights=False, size=64).model), torch.randn(2, 3, 64, 64)
    before, fast = {k: v.clone() for k, v in net.state_dict().items()}, vr.folded(net, x)
    assert fast is not net and norms(fast) == 0 and close([fast(x)], [net(x)], 1e-4)
    wide = copy.deepcopy(net).double() # where a ReLU does not switch by rounding
    assert close(answer(vr.folded(wide, x.double()), x.double()), answer(wide, x.double()), 1e-9)
    assert net.state_dict().keys() == before.keys() and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(p.requires_grad for p in fast.parameters()) and not fast.training

@pytest.mark.parametrize('name, kw', [('timm/vit_tiny_patch16_224', dict(img_size=64)), ('timm/convnext_atto', {}), ('timm/resnetv2_50x1_bit', {}), ('torchvision/swin_t', {})])
def test_networks_without_a_pair_come_back_themselves(name, kw):
    net = vr.load_source(name, weights=False, size=64, **kw).model
    assert vr.folded(net, torch.randn(2, 3, 64, 64)) is net

class Twice(nn.Module):
    "One convolution before two batch norms"
    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    def forward(self, x): return (self.a(self.conv(x)) + self.b(self.conv(x))).mean((2, 3))

class Reads(nn.Module):
    "A batch norm whose bias somebody else reads"
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    def forward(self, x): return self.bn(self.conv(x)).mean((2, 3)) + self.bn.bias

class Standardised(nn.Conv2d):
    def forward(self, x): return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)

def hooked():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    net[1].register_forward_hook(lambda m, x, y: 2 * y)
    return net

@pytest.mark.parametrize('build', [Twice, Reads, lambda: nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), hooked, lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten()),
    lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()), lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten()),
    lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Flatten())], ids='twice reads standardised hooked before batch none weight_norm'.split())
def test_what_cannot_be_folded_is_left_alone(build):
    net = build().eval().requires_grad_(False)
    assert vr.folded(net, torch.randn(4, 3, 8, 8)) is net

def test_half_precision_is_not_folded():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).eval()
    assert vr.folded(net.half(), torch.randn(2, 3, 8, 8).half()) is net and vr.folded(net.double(), torch.randn(2, 3, 8, 8).double()) is not net

# ---- the engine --------------------------------------------------------------------------------------------------------

def test_a_source_speaks_its_own_names_while_another_network_computes():
    m = model(vr.ILM)
    names, x = set(m.state_dict()), torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    y, seen = m(x), []
    with vr.engine(m, m.prompt(x).detach(), layout='folded') as how:
        assert how.layout == 'folded' and set(m.state_dict()) == names and len(list(m.source.parameters())) == 6
        torch.testing.assert_close(m(x), y)
        m.source.model.register_forward_hook(lambda *_: seen.append(1)); m(x)
        assert not seen and norms(m.source.model) == 1
    assert torch.equal(m(x), y) and seen
    with pytest.raises(RuntimeError), vr.engine(m, m.prompt(x).detach()): raise RuntimeError
    assert torch.equal(m(x), y)

@pytest.mark.parametrize('layout', ['loaded', 'folded', 'channels_last', 'auto'])
@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_a_seed_decides_everything_in_every_way_to_compute(precision, layout):
    "Bit by bit; and it learns what single precision, as loaded, learns"
    task = vr.make_task('t', data())
    def run(**kw):
        m = model(vr.ILM)
        m.prompt = vr.SMM(m.source, patch=4)
        return m, vr.fit(m, task, **quick | dict(lr=.01, keep='last') | kw)
    (m, r), (again, s), (_, plain) = run(precision=precision, layout=layout), run(precision=precision, layout=layout), run(layout='loaded')
    assert r.losses == s.losses and all(torch.equal(v, again.adapter()[k]) for k, v in m.adapter().items())
    assert r.engine['precision'] == precision and (layout == 'auto' or r.engine['layout'] == layout)
    assert r.losses[0] == pytest.approx(plain.losses[0], rel=1e-5 if precision == 'fp32' else .05)
    assert r.losses == plain.losses if (precision, layout) == ('fp32', 'loaded') else abs(r.last['loss'] - plain.last['loss']) < .3
    assert all(v.is_contiguous() for v in m.adapter().values()) and all(p.is_contiguous() for p in m.prompt.parameters())
    assert vr.evaluate(m, task.test) == vr.evaluate(again, task.test)

def test_auto_says_what_it_took(capsys):
    task, m = vr.make_task('t', data()), model(vr.ILM)
    r = vr.fit(m, task, **quick | dict(progress=True, precision='auto'))
    assert f"precision {r.engine['precision']} (images per second: fp32 " in capsys.readouterr().err
    assert {'fp32', 'bf16'} <= r.engine['images_per_second'].keys() and r.engine['device'] == 'cpu' and r.engine['threads'] == torch.get_num_threads()
    assert r.settings['precision'] == 'auto'

def test_what_is_tested_stays_in_single_precision_unless_asked():
    task = vr.make_task('t', data())
    before = {p: vr.fit(model(vr.BLM), task, **quick | dict(epochs=1, layout='loaded', precision=p)).before for p in ('fp32', 'bf16')}
    told = lambda row: {k: v for k, v in row.items() if k != 'seconds'}
    assert told(before['fp32']) == told(before['bf16'])
    asked = vr.fit(model(vr.BLM), task, **quick | dict(epochs=1, layout='loaded', eval_precision='bf16')).before
    assert asked['val_loss'] != before['fp32']['val_loss'] and asked['val_loss'] == pytest.approx(before['fp32']['val_loss'], rel=.05)
    m = model(vr.OneToOne)
    assert vr.evaluate(m, task.test, precision='bf16').loss not in (vr.evaluate(m, task.test).loss, 0)

def test_clipping_sees_the_gradient_and_not_the_scaled_one():
    task, losses = vr.make_task('t', data()), {}
    for precision in 'fp32', 'fp16':
        m = model(vr.ILM)
        vr.fit(m, task, **quick | dict(epochs=1, precision=precision, optimizer='sgd', lr=1., clip_grad=1e-4, keep='last'))
        losses[precision] = m.prompt.pattern.abs().max()
    steps = -(-len(task.train) // quick['batch_size'])
    assert 0 < losses['fp32'] <= steps * 1.01e-4 and 0 < losses['fp16'] <= steps * 1.01e-4

def test_a_source_of_ones_own_without_a_size():
    "A plain module as a source: what is measured on comes through the prompt"
    m = model(vr.ILM)
    m.source = vr.Frozen(m.source.model)
    assert vr.fit(m, vr.make_task('t', data()), **quick).engine['layout'] in ('folded', 'channels_last')

# ---- memory ------------------------------------------------------------------------------------------------------------

def test_a_batch_that_does_not_fit_goes_in_halves():
    "Found once, from then on; the answers are those of the whole; other errors are not swallowed"
    sizes = []
    def ask(x):
        sizes.append(len(x))
        if len(x) > 3: raise torch.OutOfMemoryError('CUDA out of memory')
        return x.float().mean((1, 2, 3))[:, None]
    x, y = data(24)
    said = list(vr.answers(ask, [(x[:10], y[:10]), (x[10:20], y[10:20]), (x[20:], y[20:])]))
    assert sizes == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1, 3, 1]
    assert torch.equal(torch.cat([z for z, _ in said])[:, 0], x.float().mean((1, 2, 3))) and torch.equal(torch.cat([t for _, t in said]), y)
    def never(x): raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    with pytest.raises(RuntimeError, match='allocate'): list(vr.answers(never, [(x, y)]))
    def wrong(x): raise RuntimeError('mat1 and mat2')
    with pytest.raises(RuntimeError, match='mat1'): list(vr.answers(wrong, [(x, y)]))

def test_memory_that_stays_changes_nothing_and_may_be_nested():
    x, net = torch.randn(8, 3, 64, 64), nn.Conv2d(3, 64, 3)
    with vr.kept_memory(), vr.kept_memory(): y = net(x)
    assert torch.equal(y, net(x))
    with pytest.raises(ValueError), vr.kept_memory(): raise ValueError
    from vrlit.speed import _Kept
    assert _Kept.depth == 0

def test_images_are_resized_once_and_are_the_same():
    "Without augmentation and where the prompt resizes: what it is given has its size already, and the losses are the same"
    x, y = data()
    task, seen = vr.make_task('t', (x[:, :, :12, :12], y)), []
    def run(spy=False):
        m = model(vr.ILM)
        if spy: m.prompt.r.register_forward_pre_hook(lambda r, x: seen.append(x[0].shape[-1]))
        return vr.fit(m, task, **quick | (dict() if spy else dict(augment=lambda x, g: x))).losses
    assert run(spy=True) == run() and set(seen) == {16}
    assert task.size == 12

# ---- fewer passes for the mapping --------------------------------------------------------------------------------------

def mappings(**kw):
    kept, m = [], model(vr.BLM)
    vr.fit(m, vr.make_task('t', data(), val=None), **quick | dict(epochs=4) | kw, callback=lambda row, m: kept.append(m.mapping.matrix().clone()))
    return kept

def test_passes_before_training_are_shared_and_change_nothing():
    class Counted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 30)), 0
        def forward(self, x):
            self.images += 0 if torch.is_grad_enabled() else len(x)
            return self.net(x)
    torch.manual_seed(0)
    task, plain = vr.load_task('digits', at_most=(100, 50, 40)), vr.load_source(Counted(), size=16, labels=[f's{i}' for i in range(30)], mean=.5, std=.5)
    shared = copy.deepcopy(plain)
    vr.share_passes(shared)
    of = lambda source: source.model.images
    def trained(source, prompt, mapping, **how):
        model = vr.Reprogrammed(prompt(source), source, mapping(30, task.K))
        start, result = of(source), vr.fit(model, task, batch_size=20, layout='loaded', device='cpu', progress=False, **how)
        return [{k: v for k, v in row.items() if k != 'seconds'} for row in result.log], of(source) - start
    for prompt, mapping, epochs, passes in ((vr.Watermark, vr.FLM, 0, 190), (vr.Watermark, vr.BLM, 0, 0), (vr.SMM, vr.OLM, 0, 0), (vr.Padding, vr.FLM, 0, 190), (vr.Watermark, vr.FLM, 2, 180)):
        log, seen = trained(shared, prompt, mapping, epochs=epochs)
        assert seen == passes and log == trained(plain, prompt, mapping, epochs=epochs)[0] # two epochs: two tests, and no pass for a mapping that is made once
    other = vr.random_source(shared, torch.randn(4, 3, 16, 16))
    assert trained(other, vr.Watermark, vr.FLM, epochs=0)[1] == 190 # another network

def test_a_mapping_every_k_epochs():
    every = mappings(map_every=2)
    assert torch.equal(every[0], every[1]) and torch.equal(every[2], every[3]) and not torch.equal(every[1], every[2])
    assert torch.equal(every[0], mappings()[0]) and len({m.sum(1).argmax().item() for m in mappings(map_every=9)}) == 1
    fast = mappings(map_every=2, map_fast=True)
    assert torch.equal(fast[0], fast[1]) and not torch.equal(fast[1], fast[2]) and torch.equal(fast[2], fast[3])

def test_earlier_counts_fade():
    "The n-th mapping is made from counts + share * (what was before)"
    seen = []
    class Spied(vr.BLM):
        def update(self, stats): seen.append(stats.counts.clone()); super().update(stats)
    def run(share):
        seen.clear(); vr.fit(model(Spied), vr.make_task('t', data(), val=None), **quick | dict(epochs=3, lr=0., map_memory=share))
        return [c.double() for c in seen]
    plain, fading = run(0.), run(.5)
    for n in range(3): torch.testing.assert_close(fading[n], sum(.5**(n - i) * plain[i] for i in range(n + 1)))

@pytest.mark.parametrize('mapping', [vr.FLM, vr.ILM, vr.BLM, vr.BLMPlus, vr.OLM, vr.Discriminant, vr.QuadraticDiscriminant, vr.Sinkhorn, vr.PRM])
def test_every_estimated_mapping_can_remember(mapping):
    task = vr.make_task('t', data())
    for fast in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            r = vr.fit(model(mapping), task, **quick | dict(epochs=3, map_memory=.7, map_fast=fast))
        assert r.epochs == 3

def test_statistics_of_ones_own_that_cannot_remember():
    class Own(vr.BLM):
        def wants(self, epoch):
            stats = copy.copy(vr.LabelCounts(self.S, self.K))
            return type('Mine', (), dict(update=stats.update, counts=stats.counts))()
    with pytest.raises(ValueError, match='map_memory: expected a mapping whose statistics can `remember`.*Own wants Mine'): vr.fit(model(Own), vr.make_task('t', data()), **quick, map_memory=.5)

# ---- the benchmark -----------------------------------------------------------------------------------------------------

def test_the_benchmark_times_the_same_training(capsys):
    "Every row has its rounds, every ratio its rows, and the literal loop and ours begin with the same loss"
    for prompt, mapping in ('Padding', 'ILM'), ('SMM(patch=4)', 'Discriminant'), ('Watermark', 'RLM'):
        found = vr.bench_speed(model(vr.ILM).source, prompt, mapping, batch=16, images=40, side=12, precisions=['bf16'], rounds=2, progress=False, device='cpu')
        assert {len(s) for s in found.seconds.values()} == {2} and min(map(min, found.seconds.values())) > 0
        assert set(found.seconds) == {'literal loop', 'as loaded', *(f'{p} {what}' for p in ('fp32', 'bf16') for what in ('floor', 'forward', 'prompt', 'step', 'epoch', 'map_fast'))}
        assert found.first_loss['literal'] == pytest.approx(found.first_loss['here'], rel=1e-4)
        record = json.loads(json.dumps(found.record()))
        assert record['ratios'] == found.ratios() and record['images_per_second']['fp32 step'] == 40 / statistics.median(found.seconds['fp32 step'])
        assert 'fp32 epoch / literal loop' in str(found) and len(found.plot().axes[0].patches) == len(found.seconds)

def test_the_benchmark_on_the_command_line(python, tmp_path):
    out = json.loads(python('-m', 'vrlit.bench', '--size', '32', '--prompt', 'Padding', '--images', '16', '--batch', '8', '--rounds', '1', '--no-progress', '--json', '--out', tmp_path / 's.png', cwd=tmp_path))
    assert out['setup']['size'] == 32 and out['ratios']['fp32 step / floor'] > 0 and out['parts']['label counts / forward'] > 0 and (tmp_path / 's.png').stat().st_size > 1000

# ---- for a GPU ---------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a compiler')
@pytest.mark.parametrize('how', ['default'])
def test_a_compiled_source_trains_alike(how, capsys):
    "On a CPU nobody gains from it, and it is right"
    task = vr.make_task('t', data(32), data(16), val=None)
    plain, compiled = vr.fit(model(vr.ILM), task, **quick | dict(keep='last')), vr.fit(model(vr.ILM), task, **quick | dict(keep='last', compile=how))
    assert compiled.engine['compile'] == how and plain.engine['compile'] is None
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-3) and compiled.last['test_acc'] == plain.last['test_acc']

def test_tf32_is_put_back():
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before, m = [p.allow_tf32 for p in places], model(vr.ILM)
    for wanted in True, False, None:
        with vr.engine(m, torch.zeros(2, 3, 16, 16), tf32=wanted) as how: assert [p.allow_tf32 for p in places] == ([wanted] * 2 if wanted is not None else before)
        assert [p.allow_tf32 for p in places] == before and how.tf32 is wanted

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('settings', [dict(), dict(precision='bf16'), dict(precision='fp16'), dict(compile='default'), dict(compile='graphs', precision='bf16'), dict(tf32=True)], ids=str)
def test_a_gpu_trains_alike(settings):
    task = vr.make_task('t', data())
    here, there = vr.fit(model(vr.ILM), task, **quick), vr.fit(model(vr.ILM), task, **quick | dict(device='cuda') | settings)
    assert there.losses[0] == pytest.approx(here.losses[0], rel=.05) and there.engine['device'].startswith('cuda')
    assert there.losses == vr.fit(model(vr.ILM), task, **quick | dict(device='cuda') | settings).losses

def test_an_autocast_around_is_respected():
    m, task = model(vr.OneToOne), vr.make_task('t', data())
    with torch.autocast('cpu', torch.bfloat16): around = vr.evaluate(m, task.test).loss
    assert around == vr.evaluate(m, task.test, precision='bf16').loss != vr.evaluate(m, task.test).loss

def test_a_name_that_fit_does_not_know():
    with pytest.raises(TypeError, match=r"fit\(\) got an unexpected keyword argument 'epoch'"): vr.fit(model(vr.ILM), vr.make_task('t', data()), epoch=3)
