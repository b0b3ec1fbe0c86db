"The page to try a model: what a real Chromium shows, for images of many kinds, is what Python answers"
import json, re, shutil

import numpy as np, pytest, torch, vrlit as vr
from PIL import Image
from browser import BROWSER, told_by
from conftest import some_pictures
from test_cli import vrlit

pytest.importorskip('onnxruntime')

# Drops files on the page, one after the other, as a hand does, and sends back what is then to be seen
HAND = '''<!doctype html><iframe src="index.html"></iframe><script type="module">
const frame = document.querySelector('iframe')
await new Promise(done => { frame.onload = done })
const page = frame.contentDocument, { DataTransfer, DragEvent } = frame.contentWindow, state = page.getElementById('state')
const says = async pattern => { while (!pattern.test(state.textContent)) await new Promise(done => setTimeout(done, 20)); return state.textContent }
const canvas = id => { const c = page.getElementById(id); return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]] }
const seen = [await says(/^Ready|not work/)]
for (const name of FILES) {
  state.textContent = ''
  const held = new DataTransfer()
  held.items.add(new File([await (await fetch(name)).blob()], name))
  for (const type of ['dragover', 'drop']) page.getElementById('drop').dispatchEvent(new DragEvent(type, { dataTransfer: held, cancelable: true }))
  const told = await says(/ms$|not work/)
  const rows = [...page.querySelectorAll('tbody tr')].map(r => [r.querySelector('.label').textContent, +r.title, r.querySelector('.stands').textContent])
  seen.push({ told, rows, square: canvas('square'), prompted: canvas('prompted') })
}
await fetch('seen', { method: 'POST', body: JSON.stringify(seen) })
</script>'''

def dropped(page, files, tmp):
    "What is on the page after each of the files"
    (page / 'hand.html').write_text(HAND.replace('FILES', json.dumps([f.name for f in files])))
    for f in files: shutil.copyfile(f, page / f.name)
    ready, *seen = told_by(page, 'hand.html', tmp / 'browser')
    assert ready == 'Ready.'
    return seen

@pytest.fixture(scope='module')
def runtime(tmp_path_factory):
    "onnxruntime-web, once from npm"
    if not BROWSER: pytest.skip('needs Chromium')
    folder = tmp_path_factory.mktemp('runtime') / 'page'
    try: vr.export(trained(vr.load_task('digits', shots=1)), 'web', folder, runtime='npm')
    except (ConnectionError, ValueError) as e:
        if not re.match('runtime: npm', str(e)): raise
        pytest.skip(f'needs onnxruntime-web: {e}')
    return folder

def trained(task, size=32):
    source = vr.load_source(size=size)
    model = vr.Reprogrammed(vr.Watermark(source), source, vr.ILM(source.S, task.K))
    vr.fit(model, task, epochs=1, batch_size=40, lr=.02, device='cpu', progress=False)
    return model

def check_page(model, page, files, tmp, atol=1e-4):
    for file, seen in zip(files, dropped(page, files, tmp)):
        want, = vr.predict(model, file, top=10, progress=False)
        assert re.fullmatch(rf'{file.name}: \d+ ms', seen['told'])
        square = vr.square(vr.rgb(Image.open(file)), **model.reading)
        x = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
        for name, pixels in dict(square=x / 255, prompted=vr.prompted(model, x)).items():
            height, width, rgba = seen[name]
            shown = np.array(rgba).reshape(height, width, 4)
            np.testing.assert_allclose(shown[..., :3] / 255, pixels[0].permute(1, 2, 0).detach(), atol=.51 / 255 * (name == 'prompted'), err_msg=f'{file.name}: {name}')
            assert (shown[..., 3] == 255).all()
        assert [label for label, _, _ in seen['rows']] == want.labels, file.name
        np.testing.assert_allclose([p for _, p, _ in seen['rows']], want.probabilities, atol=atol, err_msg=file.name)
        stands = vr.mapped_names(model.mapping, model.source.labels, 3)
        assert [s for _, _, s in seen['rows']] == [', '.join(stands[model.labels.index(k)]) for k in want.labels]

def kinds_of_images(folder):
    "Wide, high, small, grey, turned by its EXIF, with a palette, with holes"
    r = np.random.default_rng(0)
    colour = lambda h, w, c=3: Image.fromarray(r.integers(0, 256, (h, w, c), dtype=np.uint8))
    soft = Image.fromarray(np.add.outer(np.arange(61), 2 * np.arange(47)).astype(np.uint8)).convert('RGB')
    turned, holes = Image.Exif(), colour(31, 31, 4)
    turned[274] = 6
    holes.putalpha(Image.fromarray(r.integers(0, 2, (31, 31), dtype=np.uint8) * 255))
    made = dict(wide=colour(37, 90), high=colour(333, 41), small=colour(3, 5), grey=colour(40, 40).convert('L'), palette=colour(50, 30).convert('P'), holes=holes)
    for name, image in made.items(): image.save(folder / f'{name}.png')
    soft.save(folder / 'turned.jpg', exif=turned, quality=90)
    return sorted(folder.iterdir())

def test_the_page_answers_as_python_does(runtime, tmp_path):
    task = vr.load_task('digits', shots=8)
    model = trained(task)
    model.labels[3] = '</script><b>3' # which does not end the script
    done = vr.export(model, 'web', tmp_path / 'page', images=task.test.x[:40], runtime=runtime)
    assert sorted(f.name for f in (tmp_path / 'page').iterdir()) == sorted(['index.html', 'model.onnx', *vr.exporting.RUNTIME_FILES])
    assert done.file == tmp_path / 'page' / 'model.onnx' and done.folded and done.difference < 1e-4
    (tmp_path / 'images').mkdir()
    Image.fromarray(task.test.x[3].permute(1, 2, 0).numpy()).save(tmp_path / 'images' / 'digit.png')
    check_page(model, tmp_path / 'page', kinds_of_images(tmp_path / 'images'), tmp_path)

def test_cut_with_another_filter_for_several_prompts(runtime, tmp_path):
    "Images of 24 pixels by PIL's bicubic, the middle cut out, for a CLIP with a prompt for each group of texts"
    some_pictures(tmp_path / 'pile')
    task = vr.load_task(tmp_path / 'pile', size=24, mode='bicubic', crop=True)
    texts = [f'{kind} {label}' for label in ('<dark>', 'bright') for kind in ('a', 'one', 'some', 'the')]
    source = vr.DecoupledSource(vr.load_clip(size=32), texts, groups=[0, 1, 2, 0, 0, 1, 2, 0])
    model = vr.Reprogrammed(vr.Decoupled(vr.Padding(source, inner=20), 3), source, vr.ILM(source.S, task.K))
    vr.fit(model, task, epochs=1, batch_size=16, lr=.02, device='cpu', progress=False)
    vr.export(model, 'web', tmp_path / 'page', runtime=runtime)
    (tmp_path / 'images').mkdir()
    check_page(model, tmp_path / 'page', kinds_of_images(tmp_path / 'images'), tmp_path)

def test_what_is_no_image(runtime, tmp_path):
    (tmp_path / 'broken.png').write_text('no image')
    page = shutil.copytree(runtime, tmp_path / 'page')
    seen, = dropped(page, [tmp_path / 'broken.png'], tmp_path)
    assert seen['told'].startswith('That did not work: ') and not seen['rows']

def test_the_command_line(tmp_path):
    some_pictures(tmp_path / 'pile')
    vrlit('train', 'pile', '--source', 'embedded(size=32)', '--epochs', 1, '--batch-size', 16, '--no-progress', '--out', 'run', cwd=tmp_path)
    out, _ = vrlit('export', 'run', '--to', 'web', cwd=tmp_path)
    assert out.startswith('run/web/model.onnx: ') and 'python -m http.server -d run/web' in out
    page = (tmp_path / 'run' / 'web' / 'index.html').read_text()
    told = json.loads(re.search('<script id="settings" type="application/json">(.*?)</script>', page)[1])
    assert told['labels'] == ['bright', 'dark'] and told['runtime'].startswith('https://') and told['reading'] == dict(size=8, mode='bilinear', crop=False)
    assert 'is there and holds more than such a page' in vrlit('export', 'run', '--to', 'web', '--out', 'run', cwd=tmp_path, code=2)[1]
    run = tmp_path / 'run'
    with pytest.raises(ValueError, match='runtime: expected cdn, npm, or a folder with ort'): vr.export(run, 'web', runtime=tmp_path / 'pile')
    assert (run / 'web' / 'index.html').read_text() == page and vr.load_run(run).labels == told['labels']
    vr.export(run, 'web') # again, in its place
    assert sorted(f.name for f in (run / 'web').iterdir()) == ['index.html', 'model.onnx']

def test_without_npm(tmp_path, monkeypatch):
    model = trained(vr.load_task('digits', shots=1))
    monkeypatch.setenv('PATH', '')
    with pytest.raises(ValueError, match='runtime: npm is not installed here'): vr.export(model, 'web', tmp_path / 'page', runtime='npm')
    with pytest.raises(TypeError, match='runtime: expected cdn, npm or a folder'): vr.export(model, 'web', tmp_path / 'page', runtime=3)
    assert not list(tmp_path.iterdir())
