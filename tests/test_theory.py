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
    train = vr.compare if 'controls' in settings else vr.fit
    return train(model, task, **dict(epochs=2, batch_size=32, lr=.1, device='cpu', progress=False) | settings), model

# --- controls

def test_a_control_changes_nothing_about_the_model(source, digits):
    plain, model = run(source, digits, vr.SMM)
    both, same = run(source, digits, vr.SMM, controls=('random', 'constant'))
    assert both.result.losses == plain.losses and all(torch.equal(v, same.adapter()[k]) for k, v in model.adapter().items())
    assert list(both.controls) == ['random', 'constant'] and same.source is source

def test_a_control_is_the_same_training_on_another_source(source, digits):
    result, _ = run(source, digits, vr.SMM, controls='random')
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
    result, _ = run(source, digits, controls='constant')
    share = max((digits.test.y == k).float().mean() for k in range(10))
    assert result.controls['constant'].selected['test_acc'] <= share + 1e-6

def test_a_source_that_ignores_its_input_is_worth_nothing(digits):
    class Deaf(nn.Module):
        def __init__(self): super().__init__(); self.weight = nn.Parameter(torch.randn(20))
        def forward(self, x): return self.weight.expand(len(x), -1) + 0 * x.sum((1, 2, 3))[:, None]
    deaf = vr.load_source(Deaf(), size=32)
    result, _ = run(deaf, digits, vr.SMM, controls=('random', 'constant'))
    shares = {int((digits.test.y == k).sum()) / len(digits.test) for k in range(10)}
    assert {r.last['test_acc'] for r in (result.result, *result.controls.values())} <= shares

def test_a_separable_task_is_the_same_without_knowledge():
    "Black and white images, and a source that takes means: any weights will do, so no share is the source's"
    x = torch.cat([torch.zeros(20, 3, 8, 8), torch.ones(20, 3, 8, 8)])
    task = vr.make_task('two', (x, torch.arange(40) // 20), (x, torch.arange(40) // 20), ['black', 'white'], val=None)
    torch.manual_seed(0)
    f = vr.load_source(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 50)), size=32)
    result, _ = run(f, task, controls=('random', 'constant'))
    assert result.result.last['test_acc'] == result.controls['random'].last['test_acc'] == 1 and result.controls['constant'].last['test_acc'] == .5
    assert result.share() == 0 and result.share('constant') == 1 and '0% of what is above chance comes from the source' in repr(result)

def test_an_interrupt_of_a_control_keeps_what_was_learned(source, digits, monkeypatch):
    import vrlit.controls as controls
    whole, _ = run(source, digits)
    def interrupt(*_): raise KeyboardInterrupt
    monkeypatch.setattr(controls, 'control_model', interrupt)
    with pytest.warns(UserWarning, match="interrupted in the control 'random'"): result, model = run(source, digits, controls='random')
    assert result.interrupted and result.result.losses == whole.losses and not result.controls and not model.training

def test_a_task_without_a_record_has_controls(source, digits):
    class Bare: pass
    task = Bare()
    task.labels, task.K, task.train, task.val, task.test = digits.labels, 10, digits.train, None, digits.test
    result, _ = run(source, task, controls='random')
    assert result.share() is None and 'random    control' in repr(result)
    result, _ = run(source, task, controls=('random', 'constant'))
    assert result.share() is None or isinstance(result.share(), float)

def test_a_control_that_diverges_is_given_up_and_nothing_else(source, digits, monkeypatch):
    import vrlit.controls as controls
    class Broken(nn.Module):
        def forward(self, x): return x.new_full((len(x), 1000), float('nan')) + 0 * x.sum()
    monkeypatch.setattr(controls, 'control_model', lambda model, task, *_: (vr.Reprogrammed(model.prompt, Broken(), model.mapping), task))
    with pytest.warns(UserWarning, match="the control 'random' was given up"): result, _ = run(source, digits, controls='random')
    assert not result.controls and not result.interrupted

def test_a_wrong_control_is_told_before_anything_runs(source, digits):
    with pytest.raises(ValueError, match="controls: expected 'random' or 'constant', got 'shuffled'"): run(source, digits, controls=('random', 'shuffled'))
    flat = vr.load_source(nn.Flatten(), size=8)
    with pytest.raises(ValueError, match="controls: 'random' needs a source with weights"): run(flat, digits, controls='random')


# --- inclusions: a witness for every nested pair, on real architectures

def drawn(prompt, seed=0):
    "Random parameters, also the running statistics of batch norm"
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in prompt.parameters(): p.copy_(torch.randn(p.shape, generator=g) * (.3 if p.ndim == 4 else 1))
        for k, v in prompt.named_buffers():
            if 'running' in k: v.copy_(torch.rand(v.shape, generator=g) + .5)
    return prompt.eval()

wide, rank, smm = (lambda w: lambda s: vr.Watermark(s, w)), (lambda k: lambda s: vr.LowRank(s, k)), (lambda **kw: lambda s: vr.SMM(s, **kw))
NESTED = { # name: (smaller, larger, whether bit by bit)
    'narrow in medium': (wide('narrow'), wide('medium'), True), 'medium in full': (wide('medium'), vr.Watermark, True), 'narrow in full': (wide('narrow'), vr.Watermark, True),
    'narrow in SMM': (wide('narrow'), vr.SMM, True), 'medium in SMM 1': (wide('medium'), smm(channels=1), True),
    'full in SMM 1': (vr.Watermark, smm(channels=1), True), 'full in SMM 1, 6 layers': (vr.Watermark, smm(channels=1, layers=6, patch=32), True),
    'full in SMM': (vr.Watermark, vr.SMM, True), 'full in SMM, 6 layers': (vr.Watermark, smm(layers=6, patch=16), True),
    'SMM 1 in SMM': (smm(channels=1), vr.SMM, False), 'SMM 1 in SMM, 6 layers': (smm(channels=1, layers=6), smm(layers=6), False), 'head in SMM': (smm(train_body=False), vr.SMM, True), 'full in head': (vr.Watermark, smm(train_body=False), True),
    'f_mask in itself': (vr.SamplePattern, lambda s: vr.SamplePattern(s, seed=1), True), 'padding in itself': (vr.Padding, vr.Padding, True),
    'f_mask in SMM': (vr.SamplePattern, vr.SMM, True), 'f_mask 1 in SMM': (lambda s: vr.SamplePattern(s, channels=1), vr.SMM, False),
    'rank 1 in 2': (rank(1), rank(2), False), 'rank 2 in 5': (rank(2), rank(5), False), 'rank in full': (rank(3), vr.Watermark, False), 'full in rank H': (vr.Watermark, rank(64), False),
    'rank in SMM': (rank(3), vr.SMM, False), 'patch in full': (lambda s: vr.Patch(s, 9), vr.Watermark, True), 'resting patch in full': (lambda s: vr.Patch(s, 9, random=True), vr.Watermark, True),
    'patch in border': (lambda s: vr.Patch(s, 9), wide(9), True), 'full in affine': (vr.Watermark, vr.AffineColor, False), 'padding in scale': (vr.Padding, lambda s: vr.Scale(s, 32), False)}

@pytest.fixture(scope='module', params=['embedded', 'timm/test_resnet', 'timm/resnet18', 'timm/test_vit', 'timm/vit_tiny_patch16_224'])
def f_pre(request):
    torch.manual_seed(0)
    if request.param == 'embedded': return vr.load_source(size=64)
    return vr.load_source(request.param, weights=False, size=64, **(dict(img_size=64) if 'vit' in request.param else {}))

@pytest.mark.parametrize('name', NESTED)
def test_a_witness_is_the_same_function(name, f_pre):
    small, large, bitwise = NESTED[name]
    model = vr.Reprogrammed(drawn(small(f_pre)), f_pre, vr.RLM(f_pre.S, 7))
    x, into = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8), drawn(large(f_pre), 1)
    with torch.no_grad():
        z = model(x)
        other = (z - vr.Reprogrammed(into, f_pre, model.mapping)(x)).abs().max()
        gap = vr.inclusion_gap(model, into, x)
        assert not into.training and gap == (z - vr.Reprogrammed(into, f_pre, model.mapping)(x)).abs().max()
    assert gap == 0 if bitwise else gap <= 2e-4 * float(z.abs().max()), gap
    assert other > 10 * gap # it was another function before

def test_a_random_body_is_part_of_its_space(source):
    head, other = vr.SMM(source, train_body=False), vr.SMM(source, train_body=False, seed=1)
    assert vr.witness(head, vr.SMM(source, train_body=False)) is not head
    for prompt, into in (other, head), (vr.SMM(source, seed=1), head), (vr.Watermark(source), vr.SMM(source, channels=1, train_body=False)):
        with pytest.raises(ValueError, match='into: expected a mask generator'): vr.witness(prompt, into)

def test_a_witness_keeps_a_trained_model(digits, source):
    _, model = run(source, digits)
    into = vr.witness(model.prompt, vr.SMM(source))
    assert vr.evaluate(vr.Reprogrammed(into, source, model.mapping), digits.test) == vr.evaluate(model, digits.test)

# --- the exact setting

@pytest.fixture(scope='module')
def pictures():
    g = torch.Generator().manual_seed(0)
    return torch.rand(5, 3, 16, 16, generator=g).double(), torch.randn(5, 3, 16, 16, generator=g).double()

def test_a_planted_rank_is_found(pictures):
    f, x, g = vr.pixel_source(16), pictures[0], torch.Generator().manual_seed(1)
    U, V = (torch.linalg.qr(torch.randn(3, 16, 16, generator=g).double())[0] for _ in range(2))
    S = torch.tensor([5., 3., 2.]).double()
    t = x + U[:, :, :3] * S @ V[:, :, :3].mT
    for k, left in {1: 9 + 4, 2: 4, 3: 0, 4: 0}.items():
        assert vr.least_error(vr.LowRank(f, k), x, t) == pytest.approx(3 * left / (3 * 256), abs=1e-9)
    assert vr.least_error(vr.Watermark(f), x, t) == pytest.approx(0, abs=1e-9)

def test_least_errors_by_least_squares(pictures):
    "Shared patterns, patch means and free masks, each against a solver that knows nothing of the closed form"
    (x, t), f = pictures, vr.pixel_source(16)
    for width in 3, 8:
        M = vr.Watermark(f, width).mask.expand(3, -1, -1).flatten().bool()
        A = torch.eye(768, dtype=torch.float64)[:, M].repeat(5, 1) # of the stacked pictures on the pattern
        left = (A @ torch.linalg.lstsq(A, (t - x).flatten()[:, None]).solution - (t - x).flatten()[:, None]).square().mean()
        assert vr.least_error(vr.Watermark(f, width), x, t) == pytest.approx(float(left), rel=1e-9)
    means = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(t - x, 4), scale_factor=4)
    assert vr.least_error(vr.SamplePattern(f, 4), x, t) == pytest.approx(float((t - x - means).square().mean()), rel=1e-9)
    m, delta = torch.ones(5, 3, 4, 4).double(), torch.zeros(3, 16, 16).double()
    up, down = (lambda v: torch.nn.functional.interpolate(v, scale_factor=4)), (lambda v: torch.nn.functional.avg_pool2d(v, 4))
    for _ in range(3000): # alternating least squares: the pattern, then the masks
        delta = ((t - x) * up(m)).sum(0) / up(m).square().sum(0)
        m = down((t - x) * delta) / down(delta.square()[None])
    assert vr.least_error(vr.SMM(f, 4), x, t) == pytest.approx(float((t - x - up(m) * delta).square().mean()), rel=1e-6)

def test_larger_spaces_have_smaller_errors(pictures):
    (x, t), f = pictures, vr.pixel_source(16)
    chain = [vr.Watermark(f, 2), vr.Watermark(f, 4), vr.Watermark(f), vr.SMM(f, 4, channels=1), vr.SMM(f, 4)]
    ranks = [vr.LowRank(f, k) for k in range(1, 17)] + [vr.Watermark(f)]
    for prompts in chain, ranks, [vr.SamplePattern(f, 4), vr.SMM(f, 4)], [vr.SMM(f, 8), vr.SMM(f, 4)]:
        errors = [vr.least_error(p, x, t) for p in prompts]
        assert all(a >= b - 1e-12 for a, b in zip(errors, errors[1:])) and errors[0] > errors[-1] + 1e-3
    assert vr.least_error(ranks[-2], x, t) == pytest.approx(vr.least_error(vr.Watermark(f), x, t), rel=1e-9)

# --- bounds of the training risk

RATES = dict(pattern=.1, mask_generator=.003, left=.1, right=.1)

def chain(source, mapping, split, *names, **settings):
    spaces = {'narrow': lambda seed: vr.Watermark(source, 2, init=1., seed=seed), 'full': lambda seed: vr.Watermark(source, init=1., seed=seed), 'rank 1': lambda seed: vr.LowRank(source, 1, seed=seed),
              'f_mask': lambda seed: vr.SamplePattern(source, seed=seed), 'SMM': lambda seed: vr.SMM(source, seed=seed)}
    return vr.risk_chain(source, mapping, split, {k: spaces[k] for k in names}, **dict(restarts=1, lr=RATES, progress=False) | settings)

def test_bounds_fall_along_the_chain_and_start_where_the_smaller_space_ended(source, digits):
    mapping = vr.FLM(source.S, 10)
    vr.update_mapping(vr.Reprogrammed(vr.Watermark(source), source, mapping), digits.train)
    sequence = mapping.sequence.clone()
    rows = chain(source, mapping, digits.train.take(torch.arange(12)), 'rank 1', 'narrow', 'full', 'f_mask', 'SMM', steps=6, restarts=2)
    assert torch.equal(mapping.sequence, sequence) and len(rows) == 2 * (3 + 2 * 2)
    for k in range(2):
        low = {n: min(r['risk'] for r in rows if (r['space'], r['restart']) == (n, k)) for n in ('rank 1', 'narrow', 'full', 'f_mask', 'SMM')}
        inherited = {r['space']: r for r in rows if r['restart'] == k and r['smaller']}
        assert set(inherited) == {'full', 'SMM'} and inherited['SMM']['smaller'] == min(low.keys() - {'SMM'}, key=low.get)
        for name, row in inherited.items():
            assert row['start'] == pytest.approx(low[row['smaller']], rel=1e-4) and low[name] <= low[row['smaller']] * (1 + 1e-4)
    told = {b['space']: b for b in vr.bounds(rows)}
    assert told['narrow']['gain'] is None and told['SMM']['gain'] > -1e-4 and told['SMM']['zero_one'] <= min(told[n]['zero_one'] for n in ('rank 1', 'narrow', 'full', 'f_mask'))
    assert vr.bounds(rows) == vr.bounds(chain(source, mapping, digits.train.take(torch.arange(12)), 'rank 1', 'narrow', 'full', 'f_mask', 'SMM', steps=6, restarts=2)) # seeded
    vr.show_bounds(rows)

def test_bounds_against_closed_forms(pictures):
    "Squared loss, the source that hides nothing, a planted pattern of rank one besides: each bound is at its truth or above, and near"
    f, (x, t) = vr.pixel_source(16), (v.float() for v in pictures)
    planted = x + torch.linspace(-1, 1, 16)[:, None] * torch.linspace(1, 2, 16)
    for wish, near in (t, 1e-5), (planted, 1e-6):
        rows = chain(f, vr.OneToOne(768, 768), vr.Split(x, range(5)), 'rank 1', 'narrow', 'full', 'SMM', loss=lambda z, y: (z - wish[y].flatten(1)).square().mean(1), steps=300)
        truth = dict(zip(('rank 1', 'narrow', 'full', 'SMM'), (vr.least_error(p, x, wish) for p in (vr.LowRank(f, 1), vr.Watermark(f, 2), vr.Watermark(f), vr.SMM(f)))))
        for b in vr.bounds(rows):
            assert b['risk'] > truth[b['space']] - 1e-6
            if b['space'] != 'SMM': assert b['risk'] < truth[b['space']] + near + .002 * (b['space'] == 'rank 1') # bilinear: nearly
        assert truth['rank 1'] < 1e-9 if wish is planted else truth['rank 1'] > truth['full'] > truth['SMM']

def test_descend_adds_up_the_gradient_of_parts(source, digits):
    def gradient(batch_size):
        model = vr.Reprogrammed(vr.Watermark(source), source, vr.OneToOne(source.S, 10)).eval()
        from vrlit.theory import empirical_risk
        empirical_risk._risk(model, digits.train, empirical_risk.LOSSES['squared'], batch_size, True)
        return model.prompt.pattern.grad
    torch.testing.assert_close(gradient(64), gradient(10), rtol=1e-3, atol=1e-3 * float(gradient(64).abs().max()))

def test_one_restart_has_no_interval():
    row = dict(restart=0, smaller='', risk=.5, zero_one=.1, start=1., late=0.)
    a, b = vr.bounds([row | dict(space='a'), row | dict(space='b', risk=.7), row | dict(space='b', smaller='a', start=.5, risk=.4)])
    assert a['risk'] == .5 and b['risk'] == .4 and b['gain'] == pytest.approx(.1) and b['gain_ci'] != b['gain_ci']
    _, b = vr.bounds([row | dict(space='a'), *(row | dict(space='b', restart=k, smaller='a', start=.5, risk=.5 - g) for k, g in enumerate((.1, .2, .3)))])
    assert b['gain'] == pytest.approx(.2) and b['gain_ci'] == pytest.approx(4.302653 * .1 / 3 ** .5)

def test_a_diverging_step_is_taken_back(source, digits):
    "With a learning rate out of all proportion the bound is still the lowest risk met, and finite"
    model = vr.Reprogrammed(vr.SMM(source), source, vr.RLM(source.S, 10))
    found = vr.descend(model, digits.train.take(torch.arange(10)), steps=8, lr=dict(pattern=1e30, mask_generator=1e30))
    assert 0 <= found['risk'] <= found['start'] < float('inf') and all(v.isfinite().all() for v in model.prompt.state_dict().values())
    with torch.no_grad(): again = nn.functional.cross_entropy(model(digits.train.x[:10]), digits.train.y[:10])
    assert float(again) == pytest.approx(found['risk'], rel=1e-4)
