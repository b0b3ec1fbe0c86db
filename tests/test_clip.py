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
    return vr.load_clip('miniature') if name == 'miniature' else vr.load_clip(f'small-{name}')

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
