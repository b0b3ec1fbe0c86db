"Label counts and mappings against the official code's, against literal algorithms on random tables, and what every mapping promises"
import math, subprocess, sys

import pytest, torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from torch import nn

import vrlit as vr

CASES = {'map_10of1000': (1000, 10, 1), 'map_102of1000': (1000, 102, 1), 'map_ties_47of60': (60, 47, 1), 'map_square_12of12': (12, 12, 1),
         'map_multi3_10of100': (100, 10, 3), 'map_clip_81x17': (1377, 17, 1)} # S, K, source labels per target label

@pytest.mark.parametrize('name', CASES)
def test_golden_counts_and_sequence(name, golden):
    S, K, m = CASES[name]
    d = load_file(golden(f'{name}.safetensors'))
    stats = vr.LabelCounts(S, K)
    for pred, y in zip(d['pred'].long().split(97), d['y'].long().split(97)): stats.update(torch.eye(S)[pred], y)
    assert torch.equal(stats.counts, d['counts'].long())
    mapping = vr.ILM(S, K, per_target=m)
    mapping.update(stats)
    published = d['sequence'].long().view(K, m)
    if m > 1: assert torch.equal(mapping.sequence.sort(1).values, published.sort(1).values) # the order within one target is not defined there
    else: assert torch.equal(mapping.sequence, published)

@pytest.mark.parametrize('name', [name for name in CASES if 'multi' not in name])
def test_golden_bayesian(name, golden):
    S, K, _ = CASES[name]
    d = load_file(golden(f'{name}.safetensors'))
    logits, y = d['logits'].float(), d['y'].long()
    def weights(mapping, size=101):
        stats = mapping.wants(0)
        for z, t in zip(logits.split(size), y.split(size)): stats.update(z, t)
        mapping.update(stats)
        return mapping.matrix()
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    close(weights(vr.BLM(S, K)), d['blm_lap1'])
    close(weights(vr.BLMPlus(S, K)), d['blmp_lap1'])
    bare, published = weights(vr.BLM(S, K, laplace=0)), d['blm_lap0']
    if published.isfinite().all(): close(bare, published)
    else: # one source label that was never said, and all of the official matrix is 0 / 0: the same rule without such rows
        said = d['counts'].sum(1) > 0
        p = d['counts'][said] / d['counts'][said].sum(1, keepdim=True)
        close(bare[said], p / p.sum(0))
        assert not bare[~said].any()

def literal(n, m):
    "The published algorithm, step by step"
    n, K, taken = n.clone(), n.shape[1], [[] for _ in range(n.shape[1])]
    for _ in range(K * m):
        s, t = divmod(int(n.argmax()), K)
        taken[t].append(s)
        n[s] = -1
        if len(taken[t]) == m: n[:, t] = -1
    return taken

@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 20), st.integers(1, 5), st.integers(0, 2**30))
def test_greedy_is_the_published_one(K, m, spare, top, seed):
    n = torch.randint(0, top, (K * m + spare, K), generator=torch.Generator().manual_seed(seed))
    assert vr.greedy_assignment(n, m).tolist() == literal(n, m)
    assert vr.greedy_assignment(n.T.contiguous().T, m).tolist() == literal(n, m) # a view: the official code maps one label only

tables = st.tuples(st.integers(1, 7), st.integers(0, 12), st.integers(1, 6), st.integers(0, 2**30)) # K, spare source labels, largest count, seed

def table(K, spare, top, seed): return torch.randint(0, top, (K + spare, K), generator=torch.Generator().manual_seed(seed))

@settings(max_examples=200, deadline=None)
@given(tables)
def test_optimal_is_never_below_greedy(shape):
    n = table(*shape)
    hits = lambda sequence: int(n[sequence[:, 0], torch.arange(n.shape[1])].sum())
    greedy, optimal, bound = hits(vr.greedy_assignment(n)), hits(vr.optimal_assignment(n)), int(n.amax(1).sum())
    assert optimal / 2 <= greedy <= optimal <= bound
    if N := int(n.sum()): # the same chain, as measured; with ties and empty columns
        q = vr.mapping_quality(n)
        assert [round(v * N) for v in (q.greedy, q.optimal, q.many_to_one)] == [greedy, optimal, bound] and q.N == N
        assert -1e-9 <= q.information <= q.entropy + 1e-9
        permuted = vr.mapping_quality(n[:, torch.randperm(n.shape[1], generator=torch.Generator().manual_seed(0))])
        assert math.isclose(permuted.optimal, q.optimal) and math.isclose(permuted.information, q.information, abs_tol=1e-9)
        tied = [t for t, s in enumerate(vr.greedy_assignment(n)[:, 0].tolist()) if n[s, t] == 0 and n[:, t].any()]
        assert q.tie_break == tied
    sequence = vr.optimal_assignment(n)[:, 0].tolist()
    assert len(set(sequence)) == len(sequence)

@settings(max_examples=200, deadline=None)
@given(tables, st.sampled_from([0, .5, 1, 100]), st.sampled_from([.05, 1, 1e6]))
def test_columns_of_weights_sum_to_one(shape, laplace, epsilon):
    n = table(*shape)
    for weights in vr.bayesian_weights(n, laplace), vr.sinkhorn_weights(n, epsilon, laplace):
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(0), torch.ones(n.shape[1]).double())

@settings(max_examples=100, deadline=None)
@given(tables)
def test_permuted_target_labels_permute_the_result(shape):
    n = table(*shape)
    S, K = n.shape
    order = torch.randperm(K, generator=torch.Generator().manual_seed(shape[3]))
    for weights in vr.bayesian_weights, lambda n: vr.sinkhorn_weights(n, .3):
        torch.testing.assert_close(weights(n[:, order]), weights(n)[:, order])
    untied = n * S * K + torch.randperm(S * K, generator=torch.Generator().manual_seed(shape[3])).view(S, K) + 1 # an assignment is unique only without ties
    assert torch.equal(vr.greedy_assignment(untied[:, order]), vr.greedy_assignment(untied)[order])
    hits = lambda n: int(n[vr.optimal_assignment(n)[:, 0], torch.arange(K)].sum())
    assert hits(n[:, order]) == hits(n)

@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 30), st.integers(0, 2**30))
def test_batches_of_soft_counts_count_as_one(N, k, size, seed):
    g = torch.Generator().manual_seed(seed)
    logits, y = 3 * torch.randn(N, 7, generator=g), torch.randint(0, 4, (N,), generator=g)
    whole, parts = vr.SoftCounts(7, 4, k).update(logits, y), vr.SoftCounts(7, 4, k)
    for z, t in zip(logits.split(size), y.split(size)): parts.update(z, t)
    torch.testing.assert_close(parts.counts, whole.counts, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole.counts.sum(), logits.softmax(1).topk(k)[0].sum().double(), rtol=1e-5, atol=0)

def test_the_first_choice_is_argmax():
    "Also among equals, with what is no number, and for a view; in any precision"
    z = torch.randint(0, 3, (99, 50), generator=torch.Generator().manual_seed(0)).float()
    z[3, 7] = z[3, 9] = float('nan'); z[4, 5] = float('inf'); z[5] = -float('inf')
    for logits in z, z.T, z[:, ::3], z.double(), z.bfloat16():
        stats, y = vr.LabelCounts(logits.shape[1], 1), torch.zeros(len(logits), dtype=torch.int64)
        assert torch.equal(stats.update(logits, y).counts[:, 0], logits.argmax(1).bincount(minlength=logits.shape[1]))

@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=40), st.integers(1, 10))
def test_batches_count_as_one(pairs, size):
    pred, y = (torch.tensor([p[i] for p in pairs], dtype=torch.int64) for i in (0, 1))
    stats, literal = vr.LabelCounts(7, 4), torch.zeros(7, 4, dtype=torch.int64)
    for a, b in zip(pred.split(size), y.split(size)): stats.update(torch.eye(7)[a], b)
    for s, t in pairs: literal[s, t] += 1
    assert torch.equal(stats.counts, literal)

def linear_source(S, D=6):
    with torch.random.fork_rng(): torch.manual_seed(0); net = nn.Sequential(nn.Conv2d(3, D, 4), nn.Flatten(), nn.Linear(D, S))
    return vr.load_source(net, size=4)

BUILD = {'OneToOne': vr.OneToOne, 'RLM': vr.RLM, 'FLM': vr.FLM, 'ILM': vr.ILM, 'OLM': vr.OLM, 'BLM': vr.BLM, 'BLMPlus': vr.BLMPlus, 'Sinkhorn': vr.Sinkhorn, 'FullyMap': vr.FullyMap,
         'SeMap': lambda S, K: vr.SeMap(S, K, (list('abcdefghijkl')[:S], list('abcd')[:K]), lambda names: torch.eye(12)[[ord(n) - 97 for n in names]]),
         'AttrVR': lambda S, K: vr.AttrVR(S, K, k=S // K, kinds=1), 'PRM': vr.PRM, # with all descriptions of a label in the mean AttrVR is linear
         'Discriminant': vr.Discriminant, 'QuadraticDiscriminant': lambda S, K: vr.QuadraticDiscriminant(S, K, 0.), # with a quadratic part it is no matrix
         'Similarity': lambda S, K: vr.Similarity(S, K, linear_source(S)), 'Residual': lambda S, K: vr.Residual(vr.BLM(S, K))} # every mapping, from S and K

@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 9), st.integers(0, 2**30))
def test_semantic_mapping_in_order(K, m, spare, seed):
    "AutoVP's: in m rounds, each target label takes the closest source label that is free"
    sim = torch.rand(K * m + spare, K, generator=torch.Generator().manual_seed(seed)) + .1
    free, taken = [True] * len(sim), [[] for _ in range(K)]
    for _ in range(m):
        for t in range(K):
            s = max((s for s in range(len(sim)) if free[s]), key=lambda s: sim[s, t])
            free[s] = False; taken[t].append(s)
    assert vr.semantic_assignment(sim, m).tolist() == taken
    for assign in 'ordered', 'greedy', 'optimal', 'shared': # what has nothing in common is never taken
        some = sim * (sim > .6)
        sequence = vr.semantic_assignment(some, m, assign)
        assert all(some[s, t] > 0 for t, row in enumerate(sequence.tolist()) for s in row if s >= 0)

def test_every_mapping_is_here(): # ... and so it keeps what the tests below check
    assert set(BUILD) == set(vr.list_mappings())

@pytest.mark.parametrize('name', BUILD)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_what_every_mapping_promises(name, dtype):
    g = torch.Generator().manual_seed(0)
    logits, y = torch.randn(50, 12, generator=g, dtype=dtype), torch.randint(0, 4, (50,), generator=g)
    mapping = BUILD[name](12, 4).to(dtype)
    if (stats := mapping.wants(0)) is not None: mapping.update(stats.update(logits, y))
    assert mapping.matrix().shape == (12, 4) and not mapping.matrix().requires_grad
    torch.testing.assert_close(mapping(logits), logits @ mapping.matrix().to(dtype) + getattr(mapping, 'bias', 0))
    again = BUILD[name](12, 4).to(dtype)
    again.load_state_dict(mapping.state_dict())
    assert torch.equal(again(logits), mapping(logits))
    with pytest.raises(ValueError, match=r'logits: expected \[B, 12\], got \[50, 11\]'): mapping(logits[:, 1:])
    assert isinstance(mapping, vr.LabelMapping) and '<table>' in mapping._repr_html_()
    assert '>d<' in vr.mapping_table(mapping, [f's{i}' for i in range(12)], list('abcd'))

SPECS = dict.fromkeys(BUILD) | {'Residual': 'Residual(BLM(laplace=2.))', 'BLMPlus': 'BLMPlus(topk=2)', 'Sinkhorn': 'Sinkhorn(epsilon=.5)', 'SeMap': 'SeMap(per_target=2)', 'AttrVR': 'AttrVR(kinds=1, k=2)', 'PRM': 'PRM(k=2)', 'Similarity': "Similarity(per_target=1, order='similarity')", 'Discriminant': "Discriminant(shrinkage='ledoit-wolf')", 'QuadraticDiscriminant': 'QuadraticDiscriminant(quadratic=.3)'}

@pytest.mark.parametrize('name', SPECS)
def test_every_mapping_trains_by_name(name):
    "As `vrlit train --mapping` builds it; what is kept gives the same model again"
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 12))
    source = vr.load_source(net, size=16, labels=[f'{a} {b}' for a in ('red', 'blue', 'green') for b in 'dog cat bird fish'.split()])
    g = torch.Generator().manual_seed(0)
    images = lambda n: (torch.randint(0, 256, (n, 3, 16, 16), generator=g, dtype=torch.uint8), torch.arange(n) % 4)
    task = vr.make_task('t', images(48), images(16), ['dog', 'cat', 'bird', 'fish'], val=.25)
    build = lambda: vr.Reprogrammed(vr.Watermark(source), source, vr.build_mapping(SPECS[name] or name, 12, 4, (source.labels, task.labels), seed=0, source=source))
    model = build()
    result = vr.fit(model, task, epochs=2, batch_size=12, progress=False)
    assert all(map(math.isfinite, result.losses)) and (result.log[0]['remapped'] > 0) == (model.mapping.wants(0) is not None)
    assert vr.evaluate(build().load_adapter(model.adapter()), task.test) == vr.evaluate(model, task.test)
    assert len(vr.mapped_names(model.mapping, source.labels)) == 4

def test_pictures_of_mappings():
    "The flow has every target label, the source labels that are said most, and the rest; baselines can be shown like any model"
    import matplotlib.pyplot as plt
    n = torch.tensor([[5, 1], [0, 3], [9, 0], [0, 1]])
    figure = vr.show_flow(n, (list('abcd'), ['x', 'y']), vr.OLM(4, 2), top=2)
    assert [t.get_text() for t in figure.axes[0].texts] == ['x', 'y', 'c', 'a', '2 others']
    assert len(figure.axes[0].collections) == 4 # ribbons: c-x, a-x, a-y, others-y
    source, task = vr.load_source(nn.Sequential(nn.Flatten(), nn.Linear(768, 12)), size=16), vr.load_task('digits', shots=1)
    for model in vr.linear_probe(source, 10), vr.full_finetuning(source, 10):
        assert len(vr.show(model, task).axes) == 11
    plt.close('all')

# ---- the discriminant ----------------------------------------------------------------------------------------------

def gaussian(N=400, S=30, K=5, seed=0, dtype=torch.float32):
    "Logits with means, scales and slopes of their own, and labels of different frequency"
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, K, (N,), generator=g) * torch.randint(0, 2, (N,), generator=g)
    z = torch.randn(N, S, generator=g) @ torch.randn(S, S, generator=g) + 2 * torch.randn(K, S, generator=g)[y] + 5
    return z.to(dtype), y

def discriminant(z, y, K=5, **kw):
    mapping = vr.Discriminant(z.shape[1], K, **kw)
    mapping.update(mapping.wants(0).update(z, y))
    return mapping

@pytest.mark.parametrize('shrinkage', ['oas', 'ledoit-wolf', 0., .03, 1.])
@pytest.mark.parametrize('N, S, K', [(400, 30, 5), (60, 100, 5), (300, 20, 2)])
def test_the_discriminant_is_scikit_learns(N, S, K, shrinkage):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    z, y = gaussian(N, S, K)
    if N < S and shrinkage == 0:
        with pytest.raises(ValueError, match=r'shrinkage: 0\.0 leaves the covariance of 100 logits over 60 images singular'): discriminant(z, y, K, shrinkage=0.)
        return
    mapping = discriminant(z, y, K, shrinkage=shrinkage)
    theirs = LinearDiscriminantAnalysis(solver='lsqr', shrinkage=float(mapping.alpha)).fit(z.double().numpy(), y.numpy())
    new = gaussian(50, S, K, seed=1)[0].double()
    ours, decision = mapping(new), torch.from_numpy(theirs.decision_function(new.numpy()))
    if K == 2: ours, decision = ours[:, 1] - ours[:, 0], decision
    else: ours, decision = (v - v.mean(1, keepdim=True) for v in (ours, decision))
    torch.testing.assert_close(ours, decision, rtol=1e-6, atol=1e-6)

@pytest.mark.parametrize('kind', [vr.Moments, vr.ClassMoments])
def test_moments_add_up(kind, tmp_path):
    "In any batches, in any order, in parts, through a file"
    from safetensors.torch import load_file, save_file
    z, y = gaussian()
    whole, order = kind(30, 5).update(z, y), torch.randperm(400)
    for size in 1, 7, 400:
        parts = [kind(30, 5), kind(30, 5)]
        for i, batch in enumerate(order.split(size)): parts[i % 2].update(z[batch], y[batch])
        torch.testing.assert_close((parts[0] + parts[1]).table, whole.table, rtol=1e-10, atol=1e-8)
    save_file({'table': whole.table}, tmp_path / 'moments.safetensors')
    again = kind(30, 5, load_file(tmp_path / 'moments.safetensors')['table'])
    assert torch.equal(again.covariance(), whole.covariance()) and torch.equal(again.means(), whole.means()) and again.counts.sum() == 400
    with pytest.raises(ValueError, match='table: expected .* got'): kind(30, 5, torch.zeros(2, 2))
    with pytest.raises(ValueError, match='other: expected'): whole + kind(30, 6)
    with pytest.raises(ValueError, match=r'y: some target labels are not among 0\.\.4'): kind(30, 5).update(z, y + 1).counts
    with pytest.raises(ValueError, match='logits: some are NaN or infinite'): kind(30, 5).update(z.where(z < 9, float('inf')), y).means()

TWO = '''
import sys, torch, torch.distributed as dist, vrlit as vr
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
g = torch.Generator().manual_seed(0)
z, y = torch.randn(60, 8, generator=g), torch.arange(60) % 3
own, all_ = vr.Moments(8, 3).update(z[rank::2], y[rank::2]), vr.Moments(8, 3).update(z, y)
dist.all_reduce(own.table)
torch.testing.assert_close(own.table, all_.table)
print('as one')
'''

def test_two_processes_add_their_moments(tmp_path):
    runs = [subprocess.Popen([sys.executable, '-c', TWO, str(rank), str(tmp_path / 'store')], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    assert [run.communicate(timeout=120)[0].strip() for run in runs] == ['as one', 'as one']

def test_what_the_discriminant_falls_back_on():
    "A label without images, one with a single image, none with two, no images at all, two equal images"
    z, y = gaussian()
    with pytest.warns(UserWarning, match='no training data of target label 5; it stands at the mean of all images'): mapping = discriminant(z, y, 6)
    assert mapping(z).isfinite().all() and (mapping(z).argmax(1) == y).float().mean() > .9
    for_one = torch.cat([z, z[:1] + 30]), torch.cat([y, torch.tensor([5])])
    assert discriminant(*for_one, 6)(for_one[0])[-1].argmax() == 5
    with pytest.warns(UserWarning, match='nothing tells how they scatter; the nearest mean decides'): nearest = discriminant(z[:5], torch.arange(5))
    assert torch.equal(nearest(z).argmax(1), torch.cdist(z, z[:5]).argmin(1))
    for none in z[:0], z[:1], z[:1].repeat(2, 1):
        with pytest.warns(UserWarning): mapping = discriminant(none, torch.zeros(len(none), dtype=torch.int64))
        assert mapping(z).isfinite().all()

def test_the_shrinkage_that_is_chosen():
    z, y = gaussian(60, 100)
    more, t = gaussian(300, 100, seed=0)
    mapping = vr.Discriminant(100, 5)
    accuracy = lambda a: (discriminant(z, y, shrinkage=a)(more).argmax(1) == t).sum()
    grid = .001, .1, .6
    best = vr.choose_shrinkage(mapping, vr.Moments(100, 5).update(z, y), more, t, grid)
    assert accuracy(best) == max(map(accuracy, grid)) and mapping.shrinkage == best == mapping.alpha
    assert torch.equal(mapping.W, discriminant(z, y, shrinkage=best).W)
    with pytest.raises(ValueError, match='shrinkages: expected a number from 0 to 1, got 2'): vr.choose_shrinkage(mapping, mapping.wants(0).update(z, y), more, t, (2,))

def test_priors_and_how_often_it_is_made():
    z, y = gaussian()
    n, a, b = y.bincount(), discriminant(z, y), discriminant(z, y, priors='equal')
    shift = (a.bias - b.bias) - (n / n.sum()).log().double()
    torch.testing.assert_close(shift - shift.mean(), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-6)
    assert vr.Discriminant(3, 2, once=True).wants(1) is None and vr.Discriminant(3, 2, once=True).wants(0) and vr.Discriminant(3, 2).wants(1)

def test_a_covariance_for_each_label():
    "Of the formula, written out; without quadratic part it is the linear one"
    z, y = gaussian()
    stats = vr.ClassMoments(30, 5).update(z, y)
    linear = discriminant(z, y)
    zero, half = vr.QuadraticDiscriminant(30, 5, 0.), vr.QuadraticDiscriminant(30, 5, .5, shrinkage=.1)
    zero.update(stats); half.update(stats)
    torch.testing.assert_close(zero(z.double()), linear(z.double()), rtol=1e-6, atol=1e-6)
    x, expected = z.double(), []
    residual = torch.cat([x[y == t] - x[y == t].mean(0) for t in range(5)])
    C = residual.T @ residual / 400
    for t in range(5):
        own = .5 * C + .5 * torch.cov(x[y == t].T, correction=0)
        own = .9 * own + .1 * own.trace() / 30 * torch.eye(30)
        density = torch.distributions.MultivariateNormal(x[y == t].mean(0), own)
        expected.append(density.log_prob(x) + ((y == t).sum() / 400).log())
    torch.testing.assert_close(half(x).softmax(1), torch.stack(expected, 1).softmax(1), rtol=1e-6, atol=1e-9)
    with pytest.raises(TypeError, match='stats: expected ClassMoments'): half.update(vr.Moments(30, 5).update(z, y))

def test_a_prompt_under_the_discriminant():
    "The gradient flows through W; the map is taken anew, once, or from the training pass"
    with torch.random.fork_rng(): torch.manual_seed(0); net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 12), nn.Tanh())
    source = vr.load_source(net, size=8)
    g = torch.Generator().manual_seed(0)
    images = lambda n: (torch.randint(0, 256, (n, 3, 8, 8), generator=g, dtype=torch.uint8), torch.arange(n) % 3)
    task = vr.make_task('t', images(90), images(30), list('abc'), val=.2)
    for kw, fast in (({}, False), (dict(once=True), False), ({}, True)):
        model = vr.Reprogrammed(vr.Watermark(source), source, vr.Discriminant(12, 3, **kw))
        before = model.prompt.pattern.detach().clone()
        result = vr.fit(model, task, epochs=6, batch_size=30, lr=.1, map_fast=fast, keep='last', progress=False)
        assert (model.prompt.pattern != before).any() and result.log[-1]['loss'] < result.log[1]['loss']
        assert (result.log[2]['remapped'] == 0) or not kw

# ---- prototypes ----------------------------------------------------------------------------------------------------

def taken_in_turn(cosine, m, order):
    "Yen et al.'s rule, word by word"
    S, K = cosine.shape
    of = [[] for _ in range(K)]
    for s in order:
        targets = sorted(range(K), key=lambda t: -cosine[s, t])
        limit = m if min(map(len, of)) < m else m + 1
        for t in targets:
            if len(of[t]) < limit: of[t].append(s); break
    return [some + [-1] * (m + 1 - len(some)) for some in of]

@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 9), st.integers(0, 2**30))
def test_prototypes_take_turns(K, m, spare, seed):
    cosine = torch.rand(K * m + spare, K, generator=torch.Generator().manual_seed(seed))
    assert vr.prototype_assignment(cosine, m).tolist() == taken_in_turn(cosine, m, range(len(cosine)))
    nearest = sorted(range(len(cosine)), key=lambda s: -cosine[s].max())
    found = vr.prototype_assignment(cosine, m, order='similarity')
    assert found.tolist() == taken_in_turn(cosine, m, nearest) and (found >= 0).sum(1).min() >= m

@pytest.mark.parametrize('D', [6, 12, 40])
def test_prototypes_from_logits_are_those_of_the_features(D):
    "Exactly with at most as many features as labels; with more, the part of them that the logits know of"
    source, y = linear_source(12, D), torch.arange(40) % 4
    layer, h = vr.last_linear(source)[1], torch.rand(40, D, generator=torch.Generator().manual_seed(1)).double()
    A, c = layer.weight.detach().double(), layer.bias.detach().double()
    stats = vr.Moments(12, 4).update(h @ A.T + c, y)
    H = torch.stack([h[y == t].mean(0) for t in range(4)])
    if D > 12: H = H @ (torch.linalg.pinv(A) @ A).T
    unit = nn.functional.normalize
    torch.testing.assert_close(vr.prototype_cosines(stats.means(), A, c), unit(A) @ unit(H).T)
    m = vr.Similarity(12, 4, source, order='similarity', per_target=1)
    m.update(stats)
    assert m.sequence.tolist() == taken_in_turn(unit(A) @ unit(H).T, 1, (unit(A) @ unit(H).T).amax(1).argsort(descending=True).tolist())

def test_a_label_without_images_has_no_prototype():
    source = linear_source(12)
    m, y = vr.Similarity(12, 4, source), torch.tensor([0, 1, 3, 3])
    with pytest.warns(UserWarning, match='Similarity: no training data of target label 2; source labels that no other took stand in'):
        m.update(m.wants(0).update(torch.randn(4, 12, generator=torch.Generator().manual_seed(0)), y))
    assert m.wants(1) is None and (m.sequence[2] >= 0).sum() >= 2 and 'weight' not in m.state_dict()
    with pytest.raises(ValueError, match='mapping: 7 target labels at 2 source labels each need 14'): vr.Similarity(12, 7, source)
    with pytest.raises(TypeError, match='source: expected a source'): vr.Similarity(12, 4, None)
