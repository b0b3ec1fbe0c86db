"Each notebook runs, alone and without network; what is exported, committed and listed agrees with them"
import ast, base64, io, json, re
from pathlib import Path

import nbformat, pytest
from conftest import forked
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / 'nbs'
tested = [*sorted(NBS.glob('*.ipynb')), *sorted((NBS / 'gallery').glob('*.ipynb'))]
notebooks = [*tested, *sorted((NBS / 'experiments').glob('*.ipynb'))]
each = lambda paths: pytest.mark.parametrize('path', paths, ids=lambda p: p.relative_to(NBS).with_suffix('').as_posix())
offline = dict.fromkeys(('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'), 'http://127.0.0.1:9') # nobody listens there

def read(path): return nbformat.read(path, as_version=4)
def code(nb): return [c for c in nb.cells if c.cell_type == 'code']

def run(path):
    from nbdev.test import nbdev_test
    nbdev_test.__wrapped__(path=path, n_workers=0)

@pytest.mark.notebook
@each(tested)
def test_runs(path, tmp_path):
    code, out, err = forked(run, str(path), env=offline | {'VRLIT_CACHE': str(tmp_path / 'cache')})
    assert code == 0 and 'Success.' in out, f'exit {code}\n{out[-4000:]}\n{err[-4000:]}' # no success when nothing was eligible

@each(notebooks)
def test_is_well_made(path):
    nb, name = read(path), path.name
    nbformat.validate(nb)
    exports = any(re.search(r'^#\s*\|\s*(export|default_exp)', c.source, re.M) for c in code(nb))
    assert path.stat().st_size <= 300_000, f'{name}: {path.stat().st_size:,} bytes; at most 300,000'
    assert nb.cells[0].cell_type == 'markdown' and re.fullmatch(r'# .+\n\n> .+', nb.cells[0].source), \
        f'{name}: the first cell is `# Title`, an empty line, `> what it is in one line`, and nothing else: the site drops the rest'
    for c in nb.cells:
        leaks = re.findall(r'\[[^]\n]*`[^]\n]*\]\(', c.source) if c.cell_type == 'markdown' else []
        assert not leaks, f'{name}: on the site the text of a link has no backticks: {leaks}'
    for c in code(nb):
        assert 'nbdev' not in c.source, f'{name}: a page is read and run where there is no nbdev; `nbdev_export` is a command:\n{c.source}'
        assert c.source.count('\n') < 40, f'{name}: a cell has at most 40 lines; what is longer is two ideas:\n{c.source[:200]}'
        assert not re.search(r'^#\s*\|\s*export(?!s\b)', c.source, re.M), f'{name}: `#| exports` shows the source, this hides it:\n{c.source}'
        pages = [''.join(o.get('data', {}).get('text/html', '')) for o in c.outputs]
        assert not re.search(r'<img (?![^>]*alt="[^"]{10})', ''.join(pages)), f'{name}: a picture in a table without alt="...":\n{c.source}'
        drawn = sum('image/png' in o.get('data', {}) or 'image/jpeg' in o.get('data', {}) for o in c.outputs)
        drawn += sum('src="data:image/png' in page for page in pages)
        for option, why in ('fig-alt', 'who cannot see a picture reads'), ('fig-cap', 'below a picture stands what to see in it,'):
            line = re.search(rf'^#\| {option}: (.+)$', c.source, re.M)
            told = json.loads(line[1]) if line else []
            told = [told] if isinstance(told, str) else told
            assert drawn == len(told) and all(len(t) > 20 for t in told), f'{name}: {why} `#| {option}: "..."`; {drawn} pictures of:\n{c.source}'
        for o, kind in ((o, kind) for o in c.outputs for kind in ('image/png', 'image/jpeg') if kind in o.get('data', {})):
            image, shown = Image.open(io.BytesIO(base64.b64decode(o.data[kind]))), o.metadata.get(kind, {}).get('width', 0)
            figure = '<Figure' in ''.join(o.data.get('text/plain', '')) # not shown from a file
            assert image.width >= 2 * shown > 0 or not figure, f'{name}: a picture {image.width} pixels wide, shown {shown} wide; `python .ci/execute.py` makes it crisp on every screen'
            dpi = image.info.get('dpi')
            assert not dpi or dpi[0] > (191 if figure else 95), f'{name}: a {kind} of {dpi[0]:.0f} dpi: its titles are hard to read'
        for o in c.outputs:
            assert o.output_type != 'error', f'{name}: a stored error:\n{c.source}'
            shown = str({k: v for k, v in {**o.get('data', {}), 'text': o.get('text', '')}.items() if k not in ('image/png', 'image/jpeg')})
            there = re.search(r'/(tmp|home|root|work|Users)/[^\s\'"]*', shown)
            assert not there, f'{name}: a path of somebody\'s machine, {there[0]}, in the output of:\n{c.source}'
        if not exports or re.search(r'^#\s*\|\s*(exports|eval: false)', c.source, re.M): continue
        kinds = {type(n) for n in ast.walk(ast.parse(re.sub(r'^[%!].*', '', c.source, flags=re.M)))}
        assert not ({ast.Import, ast.ImportFrom} & kinds and {ast.Expr, ast.Assign} & kinds), \
            f'{name}: nbdev runs a cell with an import when it makes the site, so imports stand in cells of their own:\n{c.source}'
    assert path in tested or not exports, f'{name}: an experiment exports nothing'

def test_exports_are_in_sync(checkout, python):
    lib = checkout / 'vrlit'
    made = lambda: {p.relative_to(lib).as_posix(): p.read_bytes() for p in sorted(lib.rglob('*.py'))}
    committed = made()
    for p in lib.rglob('*.py'):
        if p.name != '__init__.py': p.unlink() # a module without a notebook does not come back
    python('-c', 'from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()', cwd=checkout)
    exported = made()
    wrong = sorted(k for k in committed.keys() | exported.keys() if committed.get(k) != exported.get(k))
    assert not wrong, f'vrlit/ is not what the notebooks export: {wrong}; run nbdev_export'

def test_notebooks_are_clean(checkout, python):
    nbs = checkout / 'nbs'
    stored = lambda: {p.relative_to(nbs).as_posix(): p.read_bytes() for p in sorted(nbs.rglob('*.ipynb'))}
    committed = stored()
    out = python('-c', 'from nbdev.clean import nbdev_clean; nbdev_clean.__wrapped__()', cwd=checkout)
    assert 'Failed' not in out, out
    wrong = [k for k, v in stored().items() if v != committed[k]]
    assert not wrong, f'not clean: {wrong}; run nbdev_clean'

def test_readme_is_the_index(python): python('.ci/readme.py', '--check', cwd=ROOT)

def test_sidebar_lists_every_notebook_in_the_order_of_its_number():
    import yaml
    sections = yaml.safe_load((NBS / 'sidebar.yml').read_text())['website']['sidebar']['contents']
    listed = [name for s in sections for name in s['contents']]
    pages = [p.relative_to(NBS).as_posix() for p in notebooks if p.stem != 'index']
    assert listed == ['index.ipynb', *sorted(pages, key=lambda p: (p[0] == '9', p[0] == 'e', p))], 'experiments and what is looked up come last'

def test_pages_have_names_of_their_own():
    pages = [p.parent / re.sub(r'^\d+[a-z0-9]*_', '', p.name) for p in notebooks]
    assert len(set(pages)) == len(pages), f'a page drops the number, so these collide: {sorted(map(str, pages))}'
