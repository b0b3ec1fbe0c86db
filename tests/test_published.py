"""The authors' own programs for CLIP (AttrVR, DVP, ILM-VP), EVP, LoR-VP, AutoVP and Bahng et al., on stored tensors: the same arithmetic, and
whole trainings with the same losses, mappings and patterns"""
import json, math, random
from types import SimpleNamespace

import pytest, torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

import vrlit as vr

CLIP_MEAN, CLIP_STD = (.48145466, .4578275, .40821073), (.26862954, .26130258, .27577711)

class Case(dict):
    "The tensors of a golden file by name, and its settings"
    def __init__(self, file):
        with safe_open(file, 'pt') as f:
            super().__init__({k: f.get_tensor(k) for k in f.keys()})
            self.about = {k: json.loads(v) for k, v in (f.metadata() or {}).items()}
        self.settings = SimpleNamespace(**self.about.get('settings', {}))

    def near(self, ours, name, rtol=0., atol=2e-5):
        theirs = self[name] if isinstance(name, str) else name
        torch.testing.assert_close(torch.as_tensor(ours).detach().to(theirs.dtype), theirs, rtol=rtol, atol=atol)

@pytest.fixture
def case(golden): return lambda name: Case(golden(f'{name}.safetensors'))

class Tower(nn.Module):
    "The small image network of all files"
    def __init__(self, d, prefix='tower.', dot='.'):
        super().__init__()
        of = lambda layer: (d[f'{prefix}{layer}{dot}weight'], d[f'{prefix}{layer}{dot}bias'])
        (self.conv_w, self.conv_b), (self.out_w, self.out_b) = ([nn.Parameter(v) for v in of(layer)] for layer in ('conv', 'out'))

    def forward(self, x):
        x = F.conv2d(x, self.conv_w, self.conv_b, stride=self.conv_w.shape[-1])
        return F.linear(x.tanh().flatten(1), self.out_w, self.out_b)

class Towers(nn.Module):
    "CLIP's interface: the image network, and a table in the text tower's place"
    def __init__(self, d, text):
        super().__init__()
        self.tower, self.text, self.logit_scale = Tower(d), text, nn.Parameter(d['logit_scale'])
    def encode_image(self, x): return self.tower(x)
    def encode_text(self, tokens): return self.text[tokens[:, 0]]

def clip_of(d, text): # [S, D]
    "Its texts are the numbers of the table's rows"
    s = d.settings
    read = lambda texts, context_length=1: torch.tensor([[int(t)] + [0] * (context_length - 1) for t in texts])
    clip = vr.CLIP(Towers(d, text), read, size=getattr(s, 'frame', None) or s.size, mean=s.mean, std=s.std)
    return clip, [str(i) for i in range(len(text))]

def task_of(d, K):
    split = lambda part: vr.Split(d[f'{part}_x'], d[f'{part}_y']) if f'{part}_x' in d else vr.Split(d['train_x'], d['train_y'])
    return SimpleNamespace(labels=[f'label {t}' for t in range(K)], K=K, val=None, flip=False, train=split('train'), test=split('test'))

def trained(d, model, K, callback=None, **kwargs):
    "As the file says, in stored order"
    s = d.settings
    known = dict(epochs=s.epochs, batch_size=s.batch_size, lr=float(s.lr), keep='last', shuffle=False, device='cpu', progress=False, callback=callback)
    result = vr.fit(model, task_of(d, K), **known | kwargs)
    d.near(result.losses[:len(d['losses'])], 'losses', rtol=2e-5, atol=0)
    if 'last_test_acc' in d and 'trained' not in vars(s): d.near(result.last['test_acc'], 'last_test_acc')
    return result

CLIP_SGD = dict(optimizer='sgd', momentum=.9, schedule='cosine')

# ---- AttrVR ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('inner, outer', [(24, 32), (24, 33)])
def test_attrvr_padding(inner, outer, case):
    d, key = case('attrvr_padding'), f'{inner}to{outer}'
    source = vr.load_source(nn.Sequential(nn.Flatten(), nn.Linear(3 * outer**2, 2)), size=outer, mean=CLIP_MEAN, std=CLIP_STD)
    prompt = vr.Padding(source, inner)
    prompt.load_state_dict(dict(pattern=d[f'program.{key}']))
    y = prompt(d[f'x.{key}'])
    d.near(y, f'out.{key}')
    (y * d[f'weight.{key}']).sum().backward()
    d.near(prompt.pattern.grad, f'grad.{key}')

@pytest.mark.parametrize('k', [1, 3, 20])
def test_attrvr_logits(k, case):
    d = case('attrvr_logits')
    m, K, D = d['text_des'].shape
    of = lambda kind: (d['exp'] * d['image'] @ d[f'text_{kind}'].permute(1, 0, 2).reshape(K * m, D).T).view(-1, K, m)
    for kind in 'des', 'dist': d.near(vr.AttrVR(K * m, K, k, kinds=1)(of(kind).flatten(1)), f'{kind}.k{k}')
    both = torch.stack([of('des'), of('dist')], 2).flatten(1)
    d.near(vr.AttrVR(2 * K * m, K, k, balance=d[f'lambda.k{k}'].item())(both), f'logits.k{k}')

def test_attrvr_training(case):
    d = case('attrvr_training')
    s, K = d.settings, d['text_des'].shape[1]
    clip, texts = clip_of(d, torch.stack([d['text_des'], d['text_dist']], 2).permute(1, 2, 0, 3).flatten(0, 2)) # label by label, kind by kind
    source = vr.TextSource(clip, texts)
    model = vr.Reprogrammed(vr.Padding(source, s.inner), source, vr.AttrVR(source.S, K, s.k, balance=s.balance))
    trained(d, model, K, **CLIP_SGD)
    d.near(model.prompt.pattern, 'program', atol=1e-2)
    with torch.no_grad(): d.near(model(d['test_x'][-4:]), 'last_batch_logits', rtol=2e-5, atol=2e-5)

@pytest.mark.parametrize('name', ['attrvr_names', 'attrvr_watermark'])
def test_attrvr_baselines(name, case):
    "One text per label: AR in a frame, and VP's border"
    d = case(name)
    s, K = d.settings, len(d['text'])
    clip, texts = clip_of(d, d['text'])
    source = vr.TextSource(clip, texts)
    prompt = vr.Watermark(source, s.border) if name.endswith('watermark') else vr.Padding(source, s.inner)
    trained(d, vr.Reprogrammed(prompt, source, vr.OneToOne(K, K)), K, **CLIP_SGD)
    d.near(prompt.pattern.detach() * (d['program'] != 0), 'program', atol=1e-2)
    names = [t.removeprefix('This is a photo of ').removesuffix('.') for t in d.about['texts']]
    assert [t for ts in vr.label_texts(names, 'This is a photo of {}.') for t in ts] == d.about['texts']

# ---- DVP ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['dvp_cls_v1', 'dvp_cls_v3', 'dvp_cse'])
def test_dvp(name, case):
    "Trained with the matrix of the pass before, tested and kept with the one that its own pass counted"
    d = case(name)
    s, K = d.settings, d['prm'].shape[2]
    if name == 'dvp_cse': text, groups = d['text'].view(s.causes, K, s.m, -1).transpose(0, 1).flatten(0, 2), list(range(s.causes)) * K
    else: text, groups = d['text'], d['group'].tolist()
    if name == 'dvp_cse': groups = [v for v in groups for _ in range(s.m)]
    clip, texts = clip_of(d, text)
    source = vr.DecoupledSource(clip, texts, groups)
    prompt = vr.Decoupled(vr.Padding(source, s.inner), V=len(d['programs']))
    model = vr.Reprogrammed(prompt, source, vr.PRM(source.S, K, s.k))
    tested = []
    def look(row, model):
        with torch.no_grad(), vr.eval_mode(model): tested.append((model.mapping.matrix().clone(), model(d['test_x'][-4:]), torch.stack([p.pattern.clone() for p in prompt.prompts]), row))
    trained(d, model, K, look, **CLIP_SGD, map_fast=True)
    for e, (matrix, *_) in enumerate(tested[:s.trained]): d.near(matrix, d['prm'][e + 1], atol=1e-6)
    _, logits, patterns, row = tested[s.trained - 1] # the published program's first epoch only counts
    d.near(patterns, 'programs', atol=1e-2)
    d.near(logits, 'last_batch_logits', rtol=2e-5, atol=2e-5)
    d.near(row['test_acc'], 'last_test_acc')

@pytest.mark.parametrize('name', ['dvp_cls_v1', 'dvp_cls_v3'])
def test_dvp_clusters(name, case):
    d = case(name)
    assert vr.cluster(d['text'], len(d['programs'])) == d['group'].tolist()

# ---- ILM-VP on CLIP ----------------------------------------------------------------------------------------------------

def test_text_prompts(case):
    d = case('text_prompts')
    s, K = d.settings, d['sequence'].shape[1]
    assert vr.text_prompts(d.about['names']) == d.about['texts']
    clip, texts = clip_of(d, d['text'])
    source, chosen = vr.TextSource(clip, texts), []
    model = vr.Reprogrammed(vr.Watermark(source, s.border), source, vr.ILM(source.S, K))
    trained(d, model, K, lambda row, model: chosen.append(model.mapping.sequence[:, 0].clone()), **CLIP_SGD)
    assert torch.equal(torch.stack(chosen), d['sequence'])
    d.near(model.prompt.pattern * model.prompt.mask, d['program'] * model.prompt.mask, atol=1e-2)

# ---- EVP ---------------------------------------------------------------------------------------------------------------

def test_evp(case):
    d = case('evp')
    s, K = d.settings, len(d['text'])
    clip, texts = clip_of(d, d['text'])
    source = vr.TextSource(clip, texts)
    model = vr.Reprogrammed(vr.EVP(source, s.border), source, vr.OneToOne(K, K))
    result = trained(d, model, K, optimizer='sgd', schedule='cosine-epoch')
    d.near([row['test_acc'] for row in result.log[1:]], 'test_acc')
    p, w = model.prompt.pattern.detach(), s.border
    for side, ours in dict(top=p[:, :w], bottom=p[:, -w:], left=p[:, w:-w, :w], right=p[:, w:-w, -w:]).items(): d.near(ours, f'pattern.{side}', atol=1e-4)
    assert not p[:, w:-w, w:-w].any()

# ---- LoR-VP ------------------------------------------------------------------------------------------------------------

def test_lor_vp(case):
    "Class, initial values and schedule, under a linear head on the features"
    d = case('lorvp')
    s, K = d.settings, len(d['head_bias_start'])
    source = vr.load_source(Tower(d), size=s.size, mean=s.mean, std=s.std)
    prompt, head = vr.LowRank(source, s.rank), vr.FullyMap(source.S, K)
    prompt.load_state_dict(dict(left=d['left_start'], right=d['right_start']))
    head.load_state_dict(dict(weight=d['head_weight_start'], bias=d['head_bias_start']))
    trained(d, vr.Reprogrammed(prompt, source, head), K, optimizer='sgd', momentum=s.momentum, weight_decay=s.weight_decay, schedule='cosine')
    ours = dict(left=prompt.left, right=prompt.right, head_weight=head.weight, head_bias=head.bias)
    for name, p in ours.items(): d.near(p, f'{name}_end', atol=1e-4)
    y = prompt(d['x'])
    d.near(y, 'out')
    grads = torch.autograd.grad((y * d['weight']).sum(), [prompt.left, prompt.right])
    for g, name in zip(grads, ('left', 'right')): d.near(g, f'grad_{name}', rtol=0, atol=2e-5)

# ---- AutoVP ------------------------------------------------------------------------------------------------------------

SCALES = [(h, sigma) for h in (16, 17) for sigma in ('0.1', '0.37', '0.5', '1.0', '1.3', '1.5', '1.77', '2.4', '3.0', '4.9')]

@pytest.mark.parametrize('h, sigma', SCALES)
def test_autovp_scale(h, sigma, case):
    d = case('autovp_scale')
    s, key = d.settings, f'{h}.{sigma}'
    source = vr.load_source(nn.Sequential(nn.Flatten(), nn.Linear(3 * s.size**2, 2)), size=s.size, mean=s.mean, std=s.std)
    prompt = vr.Scale(source, h, float(sigma))
    prompt.pattern.data.copy_(d[f'delta.{h}'])
    y = prompt(d[f'x.{h}'])
    d.near(y, f'out.{key}')
    d.near(prompt.mask, f'mask.{key}')
    (y * d[f'weight.{h}']).sum().backward()
    d.near(prompt.pattern.grad, f'grad_delta.{key}')
    assert prompt.scale.grad is not None and prompt.scale.grad != 0
    if f'grad_scale.{key}' in d: d.near(prompt.scale.grad, f'grad_scale.{key}', rtol=2e-3)

@pytest.mark.parametrize('m', [3, 5, 10])
def test_autovp_counts(m, case):
    d = case(f'autovp_map_m{m}')
    n = d['counts']
    S, K = n.shape
    mapping = vr.FLM(S, K, per_target=m)
    pairs = n.nonzero().repeat_interleave(n[n > 0], 0) # (s, t), as often as it was counted
    mapping.update(mapping.wants(0).update(F.one_hot(pairs[:, 0], S).float(), pairs[:, 1]))
    assert torch.equal(mapping.sequence, d['sequence'])
    d.near(mapping(d['logits']), 'out')

@pytest.mark.parametrize('m', [1, 3, 6])
def test_autovp_names(m, case):
    d = case(f'autovp_semantic_m{m}')
    names = [[f'{what} {i}' for i in range(len(d[what]))] for what in ('source', 'target')]
    encode = lambda texts: torch.stack([d[what][int(i)] for what, i in map(str.split, texts)])
    mapping = vr.SeMap(*map(len, names), names, encode, per_target=m)
    assert torch.equal(mapping.sequence, d['sequence'])
    d.near(mapping(d['logits']), 'out')

@pytest.mark.parametrize('name', ['full', 'flm3', 'ilm1', 'ilm3'])
def test_autovp_training(name, case):
    d = case(f'autovp_training_{name}')
    s = d.settings
    source = vr.load_source(Tower(d, 'source_', '_'), size=s.size, mean=s.mean, std=s.std)
    K = int(d['train_y'].max()) + 1
    mapping = vr.FullyMap(source.S, K) if name == 'full' else (vr.ILM if s.every_epoch else vr.FLM)(source.S, K, per_target=s.per_target)
    if name == 'full': mapping.load_state_dict(dict(weight=d['weight_start'], bias=d['bias_start']))
    model = vr.Reprogrammed(vr.Scale(source, s.inner, s.scale), source, mapping)
    chosen = []
    trained(d, model, K, lambda row, model: chosen.append(getattr(model.mapping, 'sequence', torch.zeros(0)).clone()), milestones=tuple(s.milestones))
    d.near(model.prompt.pattern, 'delta', atol=1e-4)
    d.near(model.prompt.scale, 'scale', atol=1e-4)
    if name == 'full':
        for k in 'weight', 'bias': d.near(getattr(mapping, k), k, atol=1e-4)
    else: assert torch.equal(torch.stack(chosen)[:len(d['sequence'])], d['sequence'])

# ---- Bahng et al. ------------------------------------------------------------------------------------------------------

def test_bahng(case):
    "Four strips are a border, and the patch in the corner and elsewhere"
    d = case('vp_prompters')
    s, x = d.settings, d['x']
    source = vr.load_source(nn.Sequential(nn.Flatten(), nn.Linear(3 * s.size**2, 2)), size=s.size, mean=0., std=1.)
    border, w = vr.Watermark(source, s.border), s.border
    whole = lambda strip: torch.cat([d[f'{strip}up'], torch.cat([d[f'{strip}left'], x.new_zeros(1, 3, s.size - 2 * w, s.size - 2 * w),
                                                               d[f'{strip}right']], 3), d[f'{strip}down']], 2)[0]
    border.pattern.data.copy_(whole(''))
    y = border(x)
    d.near(y, 'out')
    (y * d['weight']).sum().backward()
    d.near(border.pattern.grad, whole('grad_'))
    patch = vr.Patch(source, s.side)
    patch.pattern.data.copy_(d['patch'][0])
    y = patch(x)
    d.near(y, 'fixed_out')
    (y * d['weight']).sum().backward()
    d.near(patch.pattern.grad[None], 'fixed_grad')
    anywhere = vr.Patch(source, s.side, random=True).eval()
    anywhere.pattern.data.copy_(d['patch'][0])
    anywhere.place = tuple(d['random_place'].tolist())
    d.near(anywhere(x), 'random_out')
    lrs = [s.lr * vr.lr_factor('cosine', step / 100, s.steps // 100, warmup=s.warmup, steps=100) for step in d['lr_steps'].tolist()]
    d.near(lrs, 'lr', rtol=1e-9, atol=1e-9)
    assert all(p.recipes['paper-' + k]['warmup'] == s.warmup for p, k in ((vr.Watermark, 'bahng'), (vr.Patch, 'resnet')))

# ---- around the arithmetic ---------------------------------------------------------------------------------------------

def tiny(S=12, size=16, **kwargs):
    torch.manual_seed(0)
    return vr.load_source(nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, S)), size=size, **kwargs)

def some_images(n=24, side=11, K=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, side, side), generator=g, dtype=torch.uint8), torch.arange(n) % K

def spied(model, seen):
    "Keeps what the source is given, in training and in evaluation"
    model.prompt.register_forward_hook(lambda prompt, x, z: seen[prompt.training].append(z.detach()))
    return model

@pytest.mark.parametrize('build, recipe', [(lambda s: vr.EVP(s, 2), 'paper-clip'), (lambda s: vr.Watermark(s, 2), 'paper-resnet')])
def test_training_and_testing_read_the_same_images(build, recipe):
    "EVP's are bicubic in both, a watermark's bilinear, also when an augmentation resizes them first"
    source, task, seen = tiny(), vr.make_task('t', some_images(), some_images(), list('abcd'), val=None), {True: [], False: []}
    model = spied(vr.Reprogrammed(build(source), source, vr.OneToOne(12, 4)), seen)
    settings = type(model.prompt).recipes[recipe] | dict(augment='+0', flip=False, lr=0., epochs=1, batch_size=24, shuffle=False)
    vr.fit(model, task, **settings, device='cpu', progress=False)
    for z in seen[True] + seen[False]: assert torch.equal(z, seen[False][0])
    seen[True].clear()
    vr.fit(model, task, **settings | dict(augment='+0,' + ('bilinear' if recipe == 'paper-clip' else 'bicubic')), device='cpu', progress=False)
    assert not torch.equal(seen[True][-1], seen[False][0])

@pytest.mark.parametrize('build', [vr.BLM, vr.PRM, lambda S, K: vr.Residual(vr.PRM(S, K))])
def test_what_an_epoch_is_tested_with(build):
    "BayesianLM's fast program tests with the matrix that the epoch trained with, DVP's with the one that it counted"
    source, task, said, tested = tiny(), vr.make_task('t', some_images(), some_images(), list('abcd'), val=None), [], []
    model = vr.Reprogrammed(vr.Watermark(source), source, build(12, 4))
    own = lambda mapping: getattr(mapping, 'base', mapping).matrix() # what is counted; a residual learns besides
    fresh = not isinstance(model.mapping, vr.BLM) or isinstance(model.mapping, vr.PRM)
    model.mapping.register_forward_hook(lambda m, logits, z: said.append((logits[0].detach(), own(m).clone())) if m.training else None)
    result = vr.fit(model, task, epochs=3, batch_size=24, lr=.1, map_fast=True, shuffle=False, keep='last', progress=False, device='cpu',
                    callback=lambda row, m: tested.append(own(m.mapping).clone()))
    counted = []
    for logits, _ in said: # one step an epoch
        again = build(12, 4)
        again.update(again.wants(0).update(logits, task.train.y))
        counted.append(own(again))
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    for e in range(3): close(tested[e], counted[e] if fresh else said[e][1])
    for e in range(2): close(said[e + 1][1], counted[e])
    assert torch.equal(own(model.mapping), tested[-1]) and result.last['test_acc'] == vr.evaluate(model, task.test).accuracy

def test_clusters_start_as_often_as_asked():
    from sklearn.cluster import KMeans
    e = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    for n in 'auto', 1, 10: assert vr.cluster(e, 3, n_init=n) == KMeans(3, random_state=0, n_init=n).fit(e.numpy()).labels_.tolist()
    assert vr.cluster(e, 3) == KMeans(3, random_state=0).fit(e.numpy()).labels_.tolist()
    with pytest.raises(ValueError, match='n_init: expected a whole number'): vr.cluster(e, 3, n_init=0)

@pytest.mark.parametrize('start, seed', [(.1, 10), (.12, 9), (5., 7)])
def test_a_scale_comes_back(start, seed):
    "From its bounds and beyond, as where the program cuts it after each step: the same scales and losses for ten epochs"
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Tanh(), nn.Flatten(), nn.Linear(512, 12))
    source, (x, y) = vr.load_source(net, size=32), some_images(side=16, seed=seed)
    task = vr.make_task('t', (x, y), (x, y), list('abcd'), val=None)
    def published():
        prompt, scales, losses = vr.Scale(source, 16, start), [], []
        opt = torch.optim.Adam(prompt.parameters(), lr=.05)
        for _ in range(10):
            for a, b in zip(x.split(8), y.split(8)):
                opt.zero_grad()
                loss = F.cross_entropy(source(prompt(a))[:, :4], b)
                loss.backward()
                opt.step()
                with torch.no_grad(): prompt.scale.clamp_(.1, 5)
                losses.append(loss.item()); scales.append(prompt.scale.item())
        return prompt, scales, losses
    theirs, scales, losses = published()
    model, ours = vr.Reprogrammed(vr.Scale(source, 16, start), source, vr.OneToOne(12, 4)), []
    result = vr.fit(model, task, epochs=10, batch_size=8, lr=.05, schedule='constant', shuffle=False, keep='last', progress=False, device='cpu',
                    callback=lambda row, m: ours.append(m.prompt.scale.item()))
    assert result.losses == pytest.approx(losses, rel=1e-5) and ours == pytest.approx(scales[2::3], rel=1e-5)
    torch.testing.assert_close(model.prompt.pattern, theirs.pattern, rtol=0, atol=1e-5)
    at_the_border = [round(s, 6) in (.1, 5.) for s in scales]
    assert any(at_the_border) and not all(at_the_border[at_the_border.index(True):]) # it was there, and came back

DES = {f'label_{t}': [f'{"long" * 5} text {i} of {t}' for i in range(n)] for t, n in enumerate((30, 20, 12, 25))}
DIST = {k: [t.replace('text', 'other text') for t in ts][::-1] for k, ts in DES.items()}

def test_too_few_descriptions_are_drawn_again():
    "As published, label by label of one kind and then of the other, from Python's own random numbers"
    labels, m = list(DES), 20
    random.seed(5)
    published = [[random.sample(kind[k], m) if m < len(kind[k]) else random.choices(kind[k], k=m) for k in labels] for kind in (DES, DIST)]
    texts = vr.attribute_texts(DES, DIST, labels=labels, m=m, seed=5, replace=True)
    assert texts == [t for row in zip(*published) for kind in row for t in kind]
    assert len({*texts[5 * m:6 * m]}) <= 12 # label 2 has no more
    random.seed(5)
    enough = [[random.sample(kind[k], 12) for k in labels] for kind in (DES, DIST)]
    assert vr.attribute_texts(DES, DIST, labels=labels, m=12, seed=5) == [t for row in zip(*enough) for kind in row for t in kind]
    with pytest.raises(ValueError, match='m: expected 1 to 12.*got 20; replace=True draws'): vr.attribute_texts(DES, labels=labels, m=20)
    with pytest.raises(ValueError, match='m: expected a number'): vr.attribute_texts(DES, labels=labels, replace=True)

def test_repeated_descriptions_on_the_command_line(tmp_path):
    (tmp_path / 'des.json').write_text(json.dumps(DES))
    source = vr.build_source('clip/miniature(size=32, V=2, m=20, replace=True)', texts=str(tmp_path / 'des.json'), labels=list(DES), seed=5)
    assert source.S == 80 and len({*source.labels}) < 80 and [ts[0] for ts in source.texts] == vr.attribute_texts(DES, labels=list(DES), m=20, seed=5, replace=True)

def test_names_as_the_programs_write_them():
    names = ['black-eyed_susan', 'Pick-up Truck']
    assert vr.text_prompts(names, ['a {}']) == ['a black eyed susan', 'a Pick up Truck'] # CLIP's tokenizer makes small letters
    assert vr.label_texts(names, 'This is a photo of {}.', hyphens=True)[0] == ['This is a photo of black-eyed susan.']
    assert vr.build_source('clip/miniature(size=32, hyphens=True)', labels=names).texts[0] == ['This is a photo of a black-eyed susan.']

def test_commands_of_the_clip_pages_are_the_papers():
    from test_cli import commands
    lines = [line for line in commands() if 'clip/ViT' in line]
    about = lambda *words: [line for line in lines if all(w in line for w in words)]
    assert about('hyphens=True', 'This is a photo of {}.', 'Watermark(width=30)', 'paper-attrvr') and about('This is a photo of {}.', 'Padding(inner=192)', 'OneToOne')
    assert about('m=20', 'replace=True', 'AttrVR') and about('m=20', 'replace=True', 'V=3', 'PRM')
    vp = vr.Watermark.recipes['paper-attrvr']
    assert {k: vp[k] for k in ('epochs', 'batch_size', 'lr', 'augment')} == dict(epochs=200, batch_size=64, lr=40., augment='resized-crop')

@pytest.mark.parametrize('m', [1, 3])
def test_a_sequence_may_be_a_table(m):
    table = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:4 * m].view(4, m)
    for given in table, table.tolist(), table.flatten(), table.numpy():
        assert torch.equal(vr.RLM(20, 4, given, per_target=m).sequence, table) and torch.equal(vr.RLM(20, 4, sequence=given, per_target=m).sequence, table)

@pytest.mark.parametrize('S, K, k', [(3, 40, 3), (1, 100, 1), (10, 100, 10), (100, 100, 15), (5, 2, 1)])
def test_blm_plus_on_a_source_with_few_labels(S, K, k):
    mapping = vr.BLMPlus(S, K)
    mapping.update(mapping.wants(0).update(torch.randn(2 * K, S), torch.arange(2 * K) % K))
    assert mapping.topk == k and mapping.matrix().isfinite().all()

@pytest.mark.parametrize('kind', ['full', 'ilm'])
def test_autovp_on_clip(kind):
    "Its program written out: zeros around the normalised image, the pattern as it is, two gradients clipped, SGD at 40 with a cosine per step"
    torch.manual_seed(0)
    K, E, towers = 4, 4, nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Tanh(), nn.Flatten(), nn.Linear(512, 12))
    source, (x, y) = vr.load_source(towers, size=32, mean=CLIP_MEAN, std=CLIP_STD), some_images(side=18)
    prompt = vr.Scale(source, 18, 1.2, normalised=True)
    mapping = vr.FullyMap(12, K, init='identity') if kind == 'full' else vr.ILM(12, K)
    sigma, delta = torch.tensor(1.2, requires_grad=True), torch.zeros(3, 32, 32, requires_grad=True)
    W, b = torch.eye(K, 12).requires_grad_(), torch.zeros(K, requires_grad=True)
    def network(images):
        z = F.pad(source.normalise(images / 255), [7] * 4)
        z = F.grid_sample(z, F.affine_grid((torch.eye(2, 3) / sigma).expand(len(z), 2, 3), z.shape, align_corners=True), align_corners=True)
        side = min(int(18 * sigma), 32)
        mask = torch.ones(3, 32, 32)
        mask[:, (32 - side) // 2:(32 + side) // 2, (32 - side) // 2:(32 + side) // 2] = 0
        return source(z + delta * mask)
    def frequent():
        with torch.no_grad(): said = network(x).argmax(1)
        from test_mappings import literal
        counts = torch.zeros(12, K, dtype=torch.int64)
        for s, t in zip(said, y): counts[s, t] += 1
        return [s for s, in literal(counts, 1)]
    opt = torch.optim.SGD([sigma, delta, W, b] if kind == 'full' else [sigma, delta], lr=40., momentum=.9)
    schedule, losses = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=E * 3), []
    for _ in range(E):
        sequence = frequent()
        for images, labels in zip(x.split(8), y.split(8)):
            opt.zero_grad()
            logits = network(images)
            loss = F.cross_entropy(F.linear(logits, W, b) if kind == 'full' else logits[:, sequence], labels)
            loss.backward()
            for p in [sigma, b, W] if kind == 'full' else [sigma]: nn.utils.clip_grad_value_(p, .001)
            opt.step()
            with torch.no_grad(): sigma.clamp_(.1, 5)
            schedule.step(); losses.append(loss.item())
    task = vr.make_task('t', (x, y), (x, y), list('abcd'), val=None)
    settings = vr.Scale.recipes['paper-clip'] | dict(epochs=E, batch_size=8, shuffle=False, device='cpu', progress=False)
    result = vr.fit(vr.Reprogrammed(prompt, source, mapping), task, **settings)
    assert result.losses == pytest.approx(losses, rel=1e-4) and prompt.scale.item() == pytest.approx(sigma.item(), rel=1e-4) != 1.2
    torch.testing.assert_close(prompt.pattern, delta, rtol=0, atol=1e-2)

@pytest.mark.parametrize('N, batch', [(24, 8), (22, 8), (7, 8)])
@pytest.mark.parametrize('warmup', [0, 3])
def test_a_cosine_goes_by_steps(N, batch, warmup, monkeypatch):
    "As a scheduler that is told the number of steps has it, also where the last batch is smaller"
    from vrlit.train import OPTIMIZERS
    source, task = tiny(), vr.make_task('t', some_images(N), some_images(), list('abcd'), val=None)
    model, E, seen = vr.Reprogrammed(vr.Watermark(source), source, vr.OneToOne(12, 4)), 4, []
    class Spied(torch.optim.SGD):
        def step(self): seen.append(self.param_groups[0]['lr']); return super().step()
    monkeypatch.setitem(OPTIMIZERS, 'sgd', Spied)
    vr.fit(model, task, epochs=E, batch_size=batch, optimizer='sgd', lr=2., schedule='cosine', warmup=warmup, progress=False, device='cpu')
    steps = E * math.ceil(N / batch)
    cosine = lambda i: 1 + math.cos(math.pi * (i - warmup) / (steps - warmup))
    assert seen == pytest.approx([2 * (i + 1) / warmup if i < warmup else cosine(i) for i in range(steps)])

def test_the_table_of_decisions():
    "Every row is whole, says where it is from, and the page of its method links back; the recipes are what it says"
    import csv, re
    from conftest import ROOT
    rows = list(csv.DictReader((ROOT / 'nbs/experiments/paper_program.csv').open()))
    assert len(rows) > 50 and all(all(v.strip() for v in r.values()) for r in rows)
    page = lambda name: next((ROOT / 'nbs').glob(f'{name}.ipynb')).read_text(encoding='utf-8')
    for name in {r['page'] for r in rows}:
        if re.match(r'1\d|2[1-9]|3\d', name): assert '](experiments/75_paper_program_here.ipynb)' in page(name), name
    of = lambda method, what: next(r for r in rows if r['method'] == method and r['what'] == what)
    assert vr.EVP.recipes['paper-clip']['augment'] in of('EVP', 'crops')['recipe'] and vr.EVP(tiny(), 2).r.mode == 'bicubic'
    assert f'warmup={vr.Watermark.recipes["paper-bahng"]["warmup"]}' in of('VP (Bahng et al.)', 'warm-up')['recipe']
    assert vr.Watermark.recipes['paper-blm']['augment'] in of('BLM, BLM+', 'watermark')['recipe']
    lor = vr.LowRank.recipes['paper-resnet']
    assert of('LoR-VP', 'batch size and weight decay')['recipe'] == f'{lor["batch_size"]} and {lor["weight_decay"]}'
    assert vr.Scale.recipes['paper-clip']['clip_grad'] == dict(scale=.001, mapping=.001) and '0.001' in of('AutoVP', 'gradients on CLIP')['program']
    assert vr.Decoupled.recipes['paper-clip']['map_fast'] and vr.PRM.fresh and not getattr(vr.BLM, 'fresh', False)
    paper = vr.Padding.recipes['paper-resnet']
    assert [int(m * paper['epochs']) for m in paper['milestones']] == [int(n) for n in re.findall(r'\d+', of('ILM-VP', 'milestones')['recipe'])]
