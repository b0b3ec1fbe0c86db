"What a reader sees in JupyterLab, from a real kernel"
import base64, io, re

import nbformat
from nbclient import NotebookClient
from PIL import Image

SETUP = """
import vrlit as vr
source, task = vr.load_source(size=32), vr.load_task('digits', shots=4)
model = vr.Reprogrammed(vr.Padding(source), source, vr.ILM(source.S, task.K))
"""
CELLS = [SETUP, 'result = vr.fit(model, task, epochs=2, batch_size=16)', 'source', 'task', 'result', 'model.mapping', 'model']

def test_what_objects_show(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    NotebookClient(nb, kernel_name='python3', timeout=300, resources={'metadata': {'path': tmp_path}}).execute()
    _, fit, *shown = [c.outputs for c in nb.cells]
    bar, = fit # one output, whose end is a line of text: no widget, which a saved page could not show
    assert set(bar['data']) == {'text/html', 'text/plain'} and re.match('100%.* images.*val_acc=', bar['data']['text/plain']), bar
    assert '<progress' not in bar['data']['text/html'] and bar['data']['text/plain'] in bar['data']['text/html']
    assert not [o for o in fit if 'Warning' in o.get('text', '')]
    source, task, result, mapping, model = [o[0]['data']['text/html'] for o in shown]
    assert '1,000 (tench, goldfish' in source and '32 x 32 pixels' in source
    assert '10 labels' in task and len(pictures(task)) == 10 and pictures(task)[0].size == (4 * 40, 40)
    assert '2 epochs' in result and pictures(result)[0].width > 500
    rows = lambda html: re.findall(r'<tr><td>(\d)</td><td[^>]*>([^<]+)</td></tr>', html)
    names = __import__('vrlit').imagenet_labels()
    assert [t for t, _ in rows(model)] == [t for t, _ in rows(mapping)] == [*'0123456789']
    assert all(s in names for _, s in rows(model)) and all('source label' in s for _, s in rows(mapping)) # names live on the model
    assert 'Padding' in model and 'embedded' in model

def pictures(html): return [Image.open(io.BytesIO(base64.b64decode(b))) for b in re.findall(r'base64,([^"]+)"', html)]

def test_names_are_escaped():
    import torch
    import vrlit as vr
    task = vr.make_task('<b>', (torch.zeros(4, 3, 4, 4), [0, 1, 0, 1]), (torch.zeros(2, 3, 4, 4), [0, 1]), labels=['<script>', 'a & b'], val=None)
    html = task._repr_html_()
    assert '<script>' not in html and '&lt;script&gt;' in html and 'a &amp; b' in html
    mapping = vr.RLM(2, 2, [0, 1])
    source = vr.load_source(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)), size=4, labels=['<i>', 'x'])
    html = vr.Reprogrammed(vr.Resized(source), source, mapping, task.labels)._repr_html_()
    assert '<i>' not in html.replace('<i>f_', '') and '&lt;i&gt;' in html and '<script>' not in html and '&lt;script&gt;' in html

def test_help_tells_the_arguments():
    "Each argument of the functions that a reader calls, from the comment beside it; of a class at its __init__, never torch's own line"
    import inspect
    import vrlit as vr
    for name in dir(vr):
        thing = getattr(vr, name)
        if name[0] == '_' or not callable(thing): continue
        doc = inspect.getdoc(thing.__init__ if inspect.isclass(thing) else thing) or ''
        assert 'internal Module state' not in doc, name
        wanted = [p for p in inspect.signature(thing).parameters.values() if p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL]
        assert not wanted or 'Parameters\n' in doc, f'{name}: {doc}'
        missing = [p.name for p in wanted if not re.search(rf'^{p.name}( : .+)?$', doc, re.M)]
        assert not missing, f'{name}: {missing}'
    assert re.search(r'^precision : of the training steps', vr.fit.__doc__, re.M) and re.search(r'^out : ', vr.fit.__doc__, re.M), 'what comes by **how'
