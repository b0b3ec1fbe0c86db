"Vision-language sources: against open_clip's own classifier, texts encoded once and in bounded batches"
import json

import pytest, torch
import vrlit as vr

CONFIGS = {
    'ViT': dict(vision_cfg=dict(image_size=32, layers=2, width=32, patch_size=8, head_width=16), text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=2)),
    'ResNet': dict(vision_cfg=dict(image_size=32, layers=[1, 1, 1, 1], width=8, patch_size=None), text_cfg=dict(context_length=20, vocab_size=49408, width=32, heads=2, layers=1)),
    'timm': dict(vision_cfg=dict(image_size=64, timm_model_name='resnet10t', timm_pool='avg', timm_proj='linear'), quick_gelu=True,
                 text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1)),
    'custom': dict(vision_cfg=dict(image_size=32, layers=1, width=32, patch_size=16, head_width=16), custom_text=True, init_logit_bias=-10.,
                   text_cfg=dict(context_length=30, vocab_size=49408, width=32, heads=2, layers=1, pool_type='last', no_causal_mask=True))}
NAMES = ['frog', 'fire truck', 'dog', 'Abyssinian cat', 'ship']

@pytest.fixture(scope='module', autouse=True)
def configs(tmp_path_factory):
    "Small architectures for open_clip, by name"
    import open_clip
    folder = tmp_path_factory.mktemp('configs')
    for name, config in CONFIGS.items(): (folder / f'small-{name}.json').write_text(json.dumps(dict(embed_dim=24) | config))
    open_clip.add_model_config(folder)

def small(name):
    torch.manual_seed(0)
    return vr.load_clip('miniature') if name == 'miniature' else vr.load_clip(f'small-{name}', False)

@pytest.mark.parametrize('name', [*CONFIGS, 'miniature'])
@pytest.mark.parametrize('templates', [['{}'], ['This is a photo of a {}.', 'a drawing of a {}.', 'art of a {}.']], ids=len)
@pytest.mark.parametrize('batch_size', [2, 256])
def test_the_classifier_is_open_clips(name, templates, batch_size):
    import open_clip
    clip = small(name)
    W = open_clip.build_zero_shot_classifier(clip.model.clip, clip.tokenizer, NAMES, templates) # [D, K]
    source = vr.TextSource(clip, vr.label_texts(NAMES, templates), NAMES, batch_size)
    torch.testing.assert_close(source.embeddings.T, W, rtol=0, atol=1e-5)
    x = clip.normalize(torch.rand(3, 3, clip.size, clip.size, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        model = clip.model.clip
        theirs = model.logit_scale.exp() * model.encode_image(x, normalize=True) @ W
        torch.testing.assert_close(source(x), theirs, rtol=1e-5, atol=1e-5)
    assert source.S == len(NAMES) and clip.preprocessing['size'] == clip.size
    assert not any(p.requires_grad for p in source.requires_grad_(True).train().parameters()) and not any(m.training for m in source.modules())

@pytest.mark.parametrize('name', CONFIGS)
def test_what_was_saved_is_read_again(name, tmp_path):
    from safetensors.torch import save_model
    clip = small(name)
    save_model(clip.model.clip, str(tmp_path / 'w.safetensors'))
    torch.manual_seed(1)
    again = vr.load_clip(f'small-{name}', tmp_path / 'w.safetensors')
    torch.testing.assert_close(again.encode(NAMES), clip.encode(NAMES))
    with pytest.raises(ValueError, match="cannot be had"): vr.load_clip('small-ViT' if name != 'ViT' else 'small-ResNet', tmp_path / 'w.safetensors')

def count_texts(clip, monkeypatch):
    "A list that grows by the number of texts at each call of the text tower"
    calls, encode = [], clip.model.clip.encode_text
    monkeypatch.setattr(clip.model.clip, 'encode_text', lambda tokens, *a, **kw: (calls.append(len(tokens)), encode(tokens, *a, **kw))[1])
    return calls

def test_texts_are_encoded_once_per_run(monkeypatch):
    clip, task = vr.load_clip(size=64), vr.load_task('digits', shots=2)
    calls = count_texts(clip, monkeypatch)
    source = vr.TextSource(clip, vr.label_texts(task.labels, ['{}', 'the number {}', 'a {}']), task.labels, batch_size=7)
    assert calls == [7, 7, 7, 7, 2]
    model = vr.Reprogrammed(vr.Watermark(source, width=8), source, vr.ILM(source.S, task.K))
    vr.fit(model, task, epochs=3, batch_size=10, progress=False, device='cpu')
    vr.evaluate(model, task.test)
    assert sum(calls) == 30

def test_memory_is_bounded_by_the_batch(monkeypatch):
    "20,000 texts of 2,000 labels: never more than a batch of tokens and of embeddings at once, and [S, D] at the end"
    clip = vr.load_clip(size=32)
    largest, live = [], []
    monkeypatch.setattr(clip, 'tokenizer', lambda texts, context_length=32: torch.ones(len(texts), context_length, dtype=torch.int64))
    monkeypatch.setattr(clip.model.clip, 'encode_text', lambda tokens: (largest.append(tokens.shape[0]), torch.ones(len(tokens), 256))[1])
    full = torch.Tensor.index_add_
    monkeypatch.setattr(torch.Tensor, 'index_add_', lambda self, *a: (live.append((self.shape[0], a[2].shape[0])), full(self, *a))[1])
    source = vr.TextSource(clip, vr.label_texts([f'label {i}' for i in range(2000)], [f'{{}} {j}' for j in range(10)]), batch_size=128)
    assert max(largest) == 128 and set(live) == {(2000, 128), (2000, 20000 % 128)} and source.embeddings.shape == (2000, 256)

@pytest.mark.parametrize('name', [*CONFIGS, 'miniature'])
def test_a_text_that_is_too_long_is_no_text(name):
    clip = small(name)
    L = clip.tokenizer('a').shape[1]
    for n in range(L - 4, L + 3): # one piece for each word; CLIP's tokens have a start and an end, the miniature's only an end
        fits = n + (1 if name == 'miniature' else 2) <= L
        if fits: assert clip.encode(['cat ' * n]).shape == (1, clip.S)
        else:
            with pytest.raises(ValueError, match=f'at most {L} tokens'): clip.encode(['a cat', 'cat ' * n])

def test_quick_gelu_is_what_the_tag_says(monkeypatch):
    "open_clip only warns when OpenAI's weights meet the other activation"
    import open_clip
    asked = []
    monkeypatch.setattr(open_clip, 'create_model', lambda *a, **kw: (asked.append(kw.get('force_quick_gelu')), (_ for _ in ()).throw(RuntimeError('failed to download')))[1])
    for tag in 'openai', 'laion2b_s34b_b79k':
        with pytest.raises(ConnectionError): vr.load_clip('ViT-B-32', tag)
    assert asked == [True, False]

# ---- attributes, decoupled prompts -----------------------------------------------------------------------------------

def test_attrvr_is_the_published_arithmetic():
    "`getLogits` of AttrVR, written out: sorted logits of each label's descriptions, the first k averaged, lambda between the kinds"
    g = torch.Generator().manual_seed(0)
    K, m, k, balance, B = 7, 20, 3, .3, 11
    des, dist = torch.randn(B, K, m, generator=g), torch.randn(B, K, m, generator=g)
    published = balance * des.sort(-1, descending=True)[0][:, :, :k].mean(2) + (1 - balance) * dist.sort(-1, descending=True)[0][:, :, :k].mean(2)
    torch.testing.assert_close(vr.AttrVR(K * 2 * m, K, k, balance=balance)(torch.stack([des, dist], 2).flatten(1)), published)
    torch.testing.assert_close(vr.AttrVR(K * m, K, k, kinds=1)(des.flatten(1)), des.topk(k)[0].mean(-1))

@pytest.mark.parametrize('size', [1, 7, 100])
def test_the_reweighting_matrix_is_the_published_count(size):
    "`calculate_prm` of DecoupledVP, written out: an entry for each of the k best of the true label's descriptions, rows divided by their sum"
    g = torch.Generator().manual_seed(1)
    K, m, k = 5, 6, 3
    logits, y = torch.randn(60, K * m, generator=g), torch.arange(60) % K
    prm = torch.zeros(K, K * m)
    for z, t in zip(logits, y.tolist()):
        for j in z.view(K, m)[t].topk(k)[1].tolist(): prm[t, t * m + j] += 1
    mapping = vr.PRM(K * m, K, k)
    stats = mapping.wants(0)
    for z, t in zip(logits.split(size), y.split(size)): stats.update(z, t)
    mapping.update(stats)
    torch.testing.assert_close(mapping.matrix(), (prm / prm.sum(1, keepdim=True)).T)
    with pytest.raises(ValueError, match='not among 0..4'): mapping.wants(0).update(logits, y + 1).counts

def test_a_label_without_images_keeps_equal_weights():
    mapping = vr.PRM(12, 3, 2)
    with pytest.warns(UserWarning, match='PRM: no training data of target label 1'):
        mapping.update(mapping.wants(0).update(torch.randn(9, 12), torch.tensor([0, 2, 2] * 3)))
    assert torch.equal(mapping.matrix()[:, 1], torch.tensor([0., .25, 0.]).repeat_interleave(4))

def test_decoupled_prompts_learn_what_separate_ones_would():
    "Output and gradients of each pattern are those of V forward passes with masked texts, as in the published code"
    clip, x = vr.load_clip(size=32), torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    texts, groups = [f'a photo of a {n}.' for n in ('frog', 'truck', 'dog', 'cat', 'ship', 'deer')], [0, 2, 1, 1, 0, 2]
    source = vr.DecoupledSource(clip, texts, groups)
    prompt = vr.Decoupled(vr.Padding(source, 24), V=3)
    for v, p in enumerate(prompt.prompts): p.pattern.data += v
    loss = lambda z: torch.nn.functional.cross_entropy(z, torch.tensor([0, 1, 2, 3]))
    z = source(prompt(x))
    grads = torch.autograd.grad(loss(z), list(prompt.parameters()))
    masked = sum(clip.model.clip.logit_scale.exp() * clip(p(x)) @ (source.embeddings * (torch.tensor(groups) == v)[:, None]).T for v, p in enumerate(prompt.prompts))
    torch.testing.assert_close(z, masked, rtol=1e-4, atol=1e-5)
    for a, b in zip(grads, torch.autograd.grad(loss(masked), list(prompt.parameters()))): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-7)
    again = vr.Decoupled(vr.Padding(source, 24), V=3)
    again.load_state_dict(prompt.state_dict())
    assert torch.equal(source(again(x)), z) and len(list(prompt.parameters())) == 3

def test_clusters_are_the_same_for_the_same_seed():
    clip = vr.load_clip(size=32)
    e = clip.encode([f'{a} {n}' for a in ('small', 'large') for n in ('frog', 'toad', 'newt', 'truck', 'van', 'car')])
    assert vr.cluster(e, 2) == vr.cluster(e, 2) and {*vr.cluster(e, 3)} == {0, 1, 2} and {*vr.cluster(e, 1)} == {0}

@pytest.mark.parametrize('seed', range(3))
def test_every_mapping_but_attrvr_folds(seed):
    from test_mappings import BUILD
    clip, x = vr.load_clip(size=32), torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    source = vr.TextSource(clip, [f'a {a} {n}' for a in ('red', 'blue', 'green') for n in ('frog', 'truck', 'dog', 'cat')])
    g = torch.Generator().manual_seed(seed)
    for name, build in BUILD.items():
        mapping = build(12, 4)
        if (stats := mapping.wants(0)) is not None: mapping.update(stats.update(torch.randn(40, 12, generator=g), torch.arange(40) % 4))
        for p in mapping.parameters(): p.data += .1 * torch.randn(p.shape, generator=g)
        model = vr.Reprogrammed(vr.Watermark(source, 4), source, mapping).eval()
        with torch.no_grad(): torch.testing.assert_close(vr.fold(model)(x), model(x), rtol=1e-4, atol=1e-4, msg=name)
    with pytest.raises(ValueError, match='AttrVR is not linear'): vr.fold(vr.Reprogrammed(vr.Watermark(source, 4), source, vr.AttrVR(12, 4, k=2, kinds=1)))

def test_a_choice_is_drawn_for_every_epoch():
    import matplotlib.pyplot as plt
    history, texts = vr.PromptHistory(), vr.text_prompts(['a', 'b', 'c'], ['{} 1', '{} 2'])
    for sequence in [0, 1, 2], [3, 1, 2], [3, 4, 0]:
        history({}, type('Model', (), dict(mapping=vr.RLM(6, 3, sequence))))
    assert history.changes == [1, 2]
    figure = history.show(texts, ['a', 'b', 'c'])
    drawn = [t.get_text() for t in figure.axes[0].texts]
    assert drawn == ['0', '0', '0', '1', '0', '0', '1', '1', '0'] # template of each label, epoch by epoch
    assert [t.get_weight() for t in figure.axes[0].texts][-1] == 'bold' # label c took a's text
    plt.close('all')
