"The site's pages, as far as they are made without Quarto"
import json, re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])
def shown(cell): return source(cell) + '\n' + '\n'.join(''.join(o.get('data', {}).get('text/markdown', '')) for o in cell.get('outputs', []))

def test_pages(checkout, python):
    "One page per notebook, with its pictures, and on it the documentation of every function and class it exports"
    python('-c', "from nbdev.serve import proc_nbs; proc_nbs(path='nbs', n_workers=0, force=True)", cwd=checkout)
    nbs, proc = checkout / 'nbs', checkout / '_proc'
    notebooks = {p.relative_to(nbs) for p in nbs.rglob('*.ipynb')}
    assert notebooks and notebooks == {p.relative_to(proc) for p in proc.rglob('*.ipynb')}
    for name in ('_quarto.yml', 'nbdev.yml', 'sidebar.yml', 'styles.css'): assert (proc / name).is_file(), name
    for p in notebooks:
        page = '\n'.join(shown(c) for c in cells(proc / p))
        for image in re.findall(r'!\[[^]]*\]\(([^):\s]+)\)', page): assert (proc / p.parent / image).is_file(), f'{p}: no picture {image}'
        exported = '\n'.join(source(c) for c in cells(nbs / p) if re.search(r'^#\s*\|\s*exports', source(c), re.M))
        for name in re.findall(r'^(?:def|class) ([A-Za-z]\w*)', exported, re.M):
            assert re.search(rf'^#+ {name}\b', page, re.M), f'{p}: {name} is not documented on its page'

def test_configuration():
    read = lambda p: yaml.safe_load((ROOT / p).read_text(encoding='utf-8'))
    quarto, nbdev = read('_quarto.yml'), read('nbs/nbdev.yml')
    assert quarto['project']['output-dir'] == nbdev['project']['output-dir'] == '_docs' and quarto['execute'] == {'enabled': False}
    assert (ROOT / 'nbs/_quarto.yml').resolve() == ROOT / '_quarto.yml'
    for item in quarto['website']['navbar']['left']: assert (ROOT / 'nbs' / item['href']).is_file(), item
